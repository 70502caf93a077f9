//! What is sent to do harm: each case must end in its own error within a second of an idle machine, and 200 MB.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Instant;

use sketch_model::limits::Limits;
use sketch_model::render::drawing::Drawing;
use sketch_model::render::preprocess::SketchPreprocessing;

const SECONDS: f64 = 1.0;
/// Where a second is too short for the machine: no more than so many ordinary drawings. The slowest case takes as long as
/// some 1,950, and the ratio differs from processor to processor.
const ORDINARY: u32 = 4000;
/// Tries of a case that was slow: another process may have taken the caches.
const TRIES: usize = 3;
const MEGABYTES: f64 = 200.0;

/// Decodes and prepares; returns the error's text, or "drawn".
fn outcome(bytes: &[u8], limits: &Limits) -> String {
    match Drawing::decode(bytes, limits) {
        Err(error) => error.to_string(),
        Ok(drawing) => match SketchPreprocessing::best().apply(&drawing, 224) {
            Err(error) => error.to_string(),
            Ok(_) => "drawn".to_owned(),
        },
    }
}

/// A field of /proc/self/status in MB: `VmRSS` is held now, `VmHWM` was held at most.
fn memory(field: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with(field)).expect(field);
    line.split_ascii_whitespace().nth(1).and_then(|kb| kb.parse::<f64>().ok()).expect(field) / 1024.0
}

fn reset_peak() {
    std::fs::write("/proc/self/clear_refs", "5").expect("Linux");
}

/// Processor time of this thread in seconds; other work on the machine does not count.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).expect("schedstat") / 1e9
}

/// Processor seconds of [`ORDINARY`] drawings, from a twentieth of them.
fn ordinary_seconds() -> f64 {
    let face = include_bytes!("fixtures/face.json");
    let start = cpu_seconds();
    for _ in 0..ORDINARY / 20 {
        assert_eq!(outcome(face, &Limits::default()), "drawn");
    }
    20.0 * (cpu_seconds() - start)
}

struct Case {
    name: &'static str,
    bytes: Vec<u8>,
    limits: Limits,
    /// The error must hold this text.
    expected: &'static str,
}

fn case(name: &'static str, bytes: impl Into<Vec<u8>>, expected: &'static str) -> Case {
    Case { name, bytes: bytes.into(), limits: Limits::default(), expected }
}

#[test]
fn hostile_input_ends_quickly_in_a_clear_error() {
    let mut cases = bitmaps();
    cases.extend(strokes());
    cases.extend(svg_references());
    cases.extend(svg_styles());
    let mut failures = String::new();
    println!("{ORDINARY} ordinary drawings {:>22.3} s", ordinary_seconds());
    for case in &cases {
        reset_peak();
        let (held, cpu, clock) = (memory("VmRSS"), cpu_seconds(), Instant::now());
        let found = outcome(&case.bytes, &case.limits);
        let (cpu, grown) = (cpu_seconds() - cpu, memory("VmHWM") - held);
        println!("{:<40} {cpu:6.3} s {grown:6.1} MB  {found}", case.name);
        let limit = if cpu > SECONDS { SECONDS.max(ordinary_seconds()) } else { SECONDS };
        let is_slow = cpu > limit
            && (1..TRIES).all(|_| {
                let start = cpu_seconds();
                outcome(&case.bytes, &case.limits);
                cpu_seconds() - start > limit
            });
        if !found.contains(case.expected) || is_slow || grown > MEGABYTES {
            let clock = clock.elapsed().as_secs_f64();
            writeln!(failures, "{}: {cpu:.3} s ({clock:.3} s), {grown:.1} MB, {found}", case.name).expect("a string");
        }
    }
    assert!(failures.is_empty(), "\n{failures}");
}

fn crc(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

fn chunk(kind: &[u8], data: &[u8]) -> Vec<u8> {
    let body = [kind, data].concat();
    [&(data.len() as u32).to_be_bytes(), &body[..], &crc(&body).to_be_bytes()].concat()
}

fn zeros(length: usize) -> Vec<u8> {
    let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    let block = vec![0; 1 << 20];
    for start in (0..length).step_by(block.len()) {
        packed.write_all(&block[..block.len().min(length - start)]).expect("a Vec");
    }
    packed.finish().expect("a Vec")
}

/// A black PNG of one bit a pixel, with `extra` chunks before the pixels.
fn black_png(width: u32, height: u32, extra: &[u8]) -> Vec<u8> {
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[1, 0, 0, 0, 0]].concat();
    let pixels = zeros((height * (1 + width.div_ceil(8))) as usize);
    [b"\x89PNG\r\n\x1a\n", &chunk(b"IHDR", &header)[..], extra, &chunk(b"IDAT", &pixels), &chunk(b"IEND", b"")].concat()
}

fn bitmaps() -> Vec<Case> {
    let huge = black_png(30_000, 30_000, b"");
    assert!((100_000..130_000).contains(&huge.len()), "{} bytes", huge.len());
    let largest = black_png(7071, 7071, b"");
    let truncated = largest[..largest.len() / 2].to_vec();
    let bomb = [b"a\0\0", &zeros(1_000_000_000)[..]].concat();
    vec![
        case("PNG of 30000 x 30000", huge, "30000 x 30000 pixels, the limit is 50000000"),
        case("largest PNG, blank", largest, "blank"),
        case("largest PNG, truncated", truncated, "truncated"),
        case("PNG with a text of 1 GB", black_png(9, 9, &chunk(b"zTXt", &bomb)), ""),
        case("PNG with a profile of 1 GB", black_png(9, 9, &chunk(b"iCCP", &bomb)), ""),
        case("PNG of size 0", black_png(0, 0, b""), "could not be decoded"),
        case("JPEG of 65535 x 65535", jpeg_header(65_535, 65_535), "65535 x 65535 pixels"),
    ]
}

/// A JPEG that ends where its pixels should begin.
fn jpeg_header(width: u16, height: u16) -> Vec<u8> {
    let plain = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/plain.jpg")).expect("plain.jpg");
    let frame = plain.windows(2).position(|marker| marker == [0xff, 0xc0]).expect("a frame header");
    let mut bytes = plain;
    bytes[frame + 5..frame + 7].copy_from_slice(&height.to_be_bytes());
    bytes[frame + 7..frame + 9].copy_from_slice(&width.to_be_bytes());
    bytes
}

fn strokes() -> Vec<Case> {
    let row = vec!["1"; 10_000_000].join(",");
    let many = format!("[[[{row}],[{row}]]]");
    let ignored = format!("{{\"a\":{}{},\"strokes\":[]}}", "[".repeat(5_000_000), "]".repeat(5_000_000));
    vec![
        case("10 million points", many.clone(), "40000007 bytes, the limit is 33554432"),
        Case {
            name: "10 million points, no limit of bytes",
            bytes: many.into(),
            limits: Limits { bytes: usize::MAX, ..Limits::default() },
            expected: "more than 100000 points",
        },
        case("strokes with NaN", "[[[0,NaN],[1,2]]]", "not a finite number"),
        case("strokes with 1e999", "[[[0,1e999],[1,2]]]", "not a finite number"),
        case("[ ten million times", "[".repeat(10_000_000), "nested too deep"),
        case("{\"drawing\": a million times", "{\"drawing\":".repeat(1_000_000), "nested too deep"),
        case("deep nesting under an unknown key", ignored, "no points"),
        case("a million empty arrays", format!("[{}[]]", "[],".repeat(1_000_000)), "more than 100000 points"),
        case("a text of 30 MB", format!("\"{}\"", "a".repeat(30_000_000)), "data:"),
        case("data URI of zeros", format!("data:image/png;base64,{}", "A".repeat(30_000_000)), "not recognised"),
        case("100,000 random points", random_points(99_000), "drawn"),
        case("one dot", "[[[5,5],[7,7]]]", "blank"),
    ]
}

fn random_points(count: u32) -> String {
    let row =
        |seed: u32| (0..count).map(|i| ((i ^ seed).wrapping_mul(2_654_435_761) >> 22).to_string()).collect::<Vec<_>>();
    format!("[[[{}],[{}]]]", row(0).join(","), row(0x5555_5555).join(","))
}

fn svg(body: &str) -> String {
    format!("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 9 9\">{body}</svg>")
}

/// `levels` groups, each of which uses the one before ten times.
fn tenfold(levels: usize, inside: &str) -> String {
    let mut body = format!("<g id=\"l0\">{inside}</g>");
    for level in 1..=levels {
        let uses = format!("<use href=\"#l{}\"/>", level - 1).repeat(10);
        write!(body, "<g id=\"l{level}\">{uses}</g>").expect("a string");
    }
    body
}

fn svg_references() -> Vec<Case> {
    let mut entities = "<!DOCTYPE svg [<!ENTITY l0 \"lol\">".to_owned();
    for level in 1..10 {
        write!(entities, "<!ENTITY l{level} \"{}\">", format!("&l{};", level - 1).repeat(10)).expect("a string");
    }
    let chain: String = (0..200).map(|i| format!("<g id=\"c{i}\"><use href=\"#c{}\"/></g>", i + 1)).collect();
    let line = "<path stroke=\"#000\" d=\"M0 0h9\"/>";
    vec![
        case("billion laughs, entities", format!("{entities}]>{}", svg("&l9;")), "entity"),
        case("billion laughs, use", svg(&tenfold(9, line)), "more than 100000"),
        case(
            "use that contains itself",
            svg("<g id=\"a\"><use href=\"#b\"/></g><g id=\"b\"><use href=\"#a\"/></g>"),
            "itself",
        ),
        case(
            "use of the whole document",
            "<svg xmlns=\"http://www.w3.org/2000/svg\" id=\"a\"><use href=\"#a\"/></svg>",
            "itself",
        ),
        case("chain of 200 uses", svg(&chain), "nested deeper"),
        case("external reference", svg("<use href=\"http://169.254.169.254/a.svg#a\"/>"), "outside itself"),
        case("local file", svg("<image href=\"file:///etc/passwd\"/>"), "\"image\" is not supported"),
        case("a million nested groups", svg(&"<g>".repeat(1_000_000)), "more than 100000"),
        case(
            "100,000 nested groups",
            svg(&format!("{}{}", "<g>".repeat(100_000), "</g>".repeat(100_000))),
            "nested deeper",
        ),
        case("30 million <", "<".repeat(30_000_000), "limit"),
        case("16 million <", "<".repeat(16_000_000), "more than 100000"),
        case(
            "path of a million segments",
            svg(&format!("<path d=\"M0 0{}\"/>", "h1".repeat(1_000_000))),
            "more than 100000 path",
        ),
        case("clip paths, tenfold", svg(&clip_chain()), ""),
    ]
}

/// Clip paths in units of what they clip, so that each is resolved anew for each of its ten users.
fn clip_chain() -> String {
    let clip = |i: usize| {
        let rect = format!("<rect width=\"1\" height=\"1\" clip-path=\"url(#c{})\"/>", i + 1).repeat(10);
        format!("<clipPath id=\"c{i}\" clipPathUnits=\"objectBoundingBox\">{rect}</clipPath>")
    };
    let clips: String = (0..20).map(clip).collect();
    format!("{clips}<path d=\"M0 0h9v9\" clip-path=\"url(#c0)\"/>")
}

fn svg_styles() -> Vec<Case> {
    let nest = |body: &str| format!("{}{body}{}", "<g>".repeat(60), "</g>".repeat(60));
    let line = "<path d=\"M0 0h9\"/>";
    let style = |css: &str| format!("<style>{css}</style>");
    let attributes: String = (0..1_000_000).map(|i| format!(" a{i}=\"\"")).collect();
    let spaces: String = (0..60_000).map(|i| format!("<g xmlns:a{i}=\"b{i}\"/>")).collect();
    let stops = "<stop offset=\"0\"/>".repeat(10_000);
    let gradient = format!("<linearGradient id=\"g\">{stops}</linearGradient>");
    let inherit: String = ["fill", "stroke", "opacity", "color"].map(|name| format!(" {name}=\"inherit\"")).concat();
    let many = |part: &str| part.repeat(90_000);
    vec![
        case(
            "selectors that backtrack",
            svg(&(style("a g g g g g g g g path{fill:red}") + &nest(line))),
            "too complex",
        ),
        case(
            "selectors times declarations",
            svg(&style(&format!("{}a{{{}}}", "a,".repeat(100_000), "x:1;".repeat(100_000)))),
            "too complex",
        ),
        case("rules times elements", svg(&(style(&"path{fill:red}".repeat(10_000)) + &many("<g/>"))), "too complex"),
        case("unfinished style", svg(&style(&"a[b=c".repeat(1_000_000))), ""),
        case("a million attributes", format!("<svg{attributes}/>"), "too complex"),
        case("60,000 namespaces", svg(&spaces), "too complex"),
        case(
            "stops times paths",
            svg(&(gradient + &"<path fill=\"url(#g)\" d=\"M0 0h9v9\"/>".repeat(30_000))),
            "too complex",
        ),
        case("90,000 inherited looks", svg(&nest(&many(&format!("<g{inherit}/>")))), "too complex"),
        case(
            "30,000 plain lines",
            svg(&"<path stroke=\"#000\" fill=\"none\" d=\"M0 0h9v9\"/>".repeat(30_000)),
            "drawn",
        ),
        case(
            "one style of 15 MB",
            svg(&format!("<path d=\"M0 0h9\" style=\"{}\"/>", "fill:red;".repeat(1_600_000))),
            "too complex",
        ),
        case(
            "45,000 styles of 900 bytes",
            svg(&format!("<path d=\"M0 0h9\" style=\"{}\"/>", "fill:red;".repeat(100)).repeat(15_000)),
            "too complex",
        ),
        case(
            "a property of 10 MB, inherited",
            svg(&format!("<g fill=\"{}red\">{}</g>", " ".repeat(10_000_000), "<path d=\"M0 0h9\"/>".repeat(40_000))),
            "too complex",
        ),
        case(
            "a property of 10 kB, inherited",
            svg(&format!("<g fill=\"{}red\">{}</g>", " ".repeat(9_990), "<path d=\"M0 0h9\"/>".repeat(40_000))),
            "",
        ),
        case(
            "90,000 curves, huge strokes",
            svg(&curves("stroke-width=\"1e6\" transform=\"skewX(10)\"", 90_000)),
            "drawn",
        ),
        case(
            "curves with a stroke of width zero",
            svg(&(curves("stroke-width=\"1e6\" transform=\"skewX(10)\"", 19_000) + "<path stroke-width=\"0\"/>")),
            "drawn",
        ),
        case("wild strokes", svg(&wild("stroke=\"#000\" fill=\"none\"")), "drawn"),
        case("wild fill", svg(&wild("")), "drawn"),
        case(
            "20,000 fills of the whole sheet",
            svg(&"<path d=\"M0 0h9v9h-9\"/>".repeat(20_000)),
            "too many large shapes",
        ),
        case("dashes without end", svg("<path stroke=\"#000\" stroke-dasharray=\"1e-9\" d=\"M0 0h1e9\"/>"), "drawn"),
        case("coordinates beyond all bounds", svg("<path stroke=\"#000\" d=\"M-3e38 -3e38 L3e38 3e38\"/>"), ""),
    ]
}

fn curves(attributes: &str, count: usize) -> String {
    format!("<path stroke=\"#000\" {attributes} d=\"M0 0{}\"/>", "c1 2 3 4 5 6".repeat(count))
}

/// Curves all over the sheet.
fn wild(attributes: &str) -> String {
    let mut path = "M0 0C".to_owned();
    let mut seed = 1u32;
    for _ in 0..6 * 90_000 {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        write!(path, "{} ", seed >> 22).expect("a string");
    }
    format!("<path {attributes} d=\"{path}\"/>")
}
