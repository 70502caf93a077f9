//! A data set of shapes and a network for it, both generated.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use image::{Rgb, RgbImage};
use sketch_model::inference::onnx::ModelProto;
use sketch_model::inference::onnx::build::{Size, attribute_int, value_info};
use sketch_model::inference::onnx::messages::DataType;
use sketch_model::manifest::{FORMAT, Input, Manifest};
use sketch_model::render::preprocess::{PhotoPreprocessing, SketchPreprocessing};
use sketch_trainer::augment::Rng;
use sketch_trainer::engine::Tape;
use sketch_trainer::lite::Convolution;

/// Names, whether they are unseen, and the polygons' corners; every second corner of a star is further in.
const CLASSES: [(&str, bool, usize, f32); 9] = [
    ("triangle", false, 3, 1.0),
    ("square", false, 4, 1.0),
    ("hexagon", false, 6, 1.0),
    ("star", false, 10, 0.4),
    ("cross", false, 8, 0.3),
    ("needle", false, 4, 0.2),
    ("pentagon", true, 5, 1.0),
    ("saw", true, 12, 0.7),
    ("dart", true, 6, 0.4),
];
const IMAGES: u64 = 8;
const SIDE: u32 = 64;

/// Writes sketches, drawings, photos and `classes.tsv` below `root`.
pub fn write(root: &Path) {
    let mut list = "class\tsplit\tquickdraw\tcaltech101\n".to_owned();
    for (number, (name, unseen, corners, inner)) in CLASSES.into_iter().enumerate() {
        let split = if unseen { "val" } else { "train" };
        writeln!(list, "{name}\t{split}\t{name}\t").unwrap();
        let mut drawings = String::new();
        for image in 0..IMAGES {
            let polygon = |part| polygon(corners, inner, &mut Rng::new(&[number as u64, image, part]));
            save(&outline(&polygon(0)), &root.join("sketchy-mini/sketch").join(name), image);
            save(&filled(&polygon(1), number as u64 * 100 + image), &root.join("sketchy-mini/photo").join(name), image);
            writeln!(drawings, "{{\"drawing\":[{}]}}", stroke(&polygon(2))).unwrap();
        }
        fs::create_dir_all(root.join("quickdraw")).unwrap();
        fs::write(root.join("quickdraw").join(format!("{name}.ndjson")), drawings).unwrap();
    }
    fs::write(root.join("classes.tsv"), list).unwrap();
}

fn polygon(corners: usize, inner: f32, rng: &mut Rng) -> Vec<(f32, f32)> {
    let (turn, size) = (rng.uniform(-0.2, 0.2), rng.uniform(20.0, 28.0));
    let corner = |i: usize| {
        let angle = turn + std::f32::consts::TAU * i as f32 / corners as f32;
        let radius = if i % 2 == 1 { size * inner } else { size };
        (32.0 + radius * angle.sin(), 32.0 - radius * angle.cos())
    };
    (0..corners).map(corner).collect()
}

fn stroke(polygon: &[(f32, f32)]) -> String {
    let closed = || polygon.iter().chain(polygon.first());
    let xs: Vec<String> = closed().map(|(x, _)| x.to_string()).collect();
    let ys: Vec<String> = closed().map(|(_, y)| y.to_string()).collect();
    format!("[[{}],[{}]]", xs.join(","), ys.join(","))
}

/// Whether a point is inside, by the even-odd rule, and its distance from the border.
fn inside_and_distance(polygon: &[(f32, f32)], x: f32, y: f32) -> (bool, f32) {
    let (mut inside, mut nearest) = (false, f32::INFINITY);
    for (i, &(ax, ay)) in polygon.iter().enumerate() {
        let (bx, by) = polygon[(i + 1) % polygon.len()];
        if (ay > y) != (by > y) && x < (bx - ax) * (y - ay) / (by - ay) + ax {
            inside = !inside;
        }
        let length = (bx - ax).powi(2) + (by - ay).powi(2);
        let along = (((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / length).clamp(0.0, 1.0);
        nearest = nearest.min((x - ax - along * (bx - ax)).hypot(y - ay - along * (by - ay)));
    }
    (inside, nearest)
}

fn outline(polygon: &[(f32, f32)]) -> RgbImage {
    RgbImage::from_fn(SIDE, SIDE, |x, y| {
        let (_, distance) = inside_and_distance(polygon, x as f32 + 0.5, y as f32 + 0.5);
        Rgb([if distance < 1.0 { 0 } else { 255 }; 3])
    })
}

fn filled(polygon: &[(f32, f32)], seed: u64) -> RgbImage {
    let mut rng = Rng::new(&[seed]);
    let [ink, paper] = [(); 2].map(|()| [(); 3].map(|()| rng.uniform(0.0, 255.0) as u8));
    RgbImage::from_fn(SIDE, SIDE, |x, y| {
        let (inside, _) = inside_and_distance(polygon, x as f32 + 0.5, y as f32 + 0.5);
        Rgb(if inside { ink } else { paper })
    })
}

fn save(picture: &RgbImage, folder: &Path, number: u64) {
    fs::create_dir_all(folder).unwrap();
    picture.save(folder.join(format!("{number}.png"))).unwrap();
}

/// Three convolutions with random weights, the last of them called `late`; features, ten classes, an embedding.
pub fn network() -> (ModelProto, Manifest) {
    let mut tape = Tape::default();
    let mut rng = Rng::new(&[1]);
    let mut map = "image".to_owned();
    for (name, from, to) in [("early", 3, 8), ("middle", 8, 16), ("late", 16, 32)] {
        let weights = normal(&mut rng, to * from * 9, (2.0 / (from * 9) as f32).sqrt());
        let weight = tape.named_constant(&format!("{name}.weight"), &[to, from, 3, 3], &weights).unwrap();
        let bias = tape.named_constant(&format!("{name}.bias"), &[to], &normal(&mut rng, to, 0.1)).unwrap();
        let shape = Convolution { kernel: 3, stride: 2, groups: 1, pad_begin: 1, pad_end: 1 };
        let sum = tape.named("Conv", &[&map, &weight, &bias], &[name], shape.attributes());
        map = tape.named("Relu", &[&sum], &[&format!("{name}.relu")], vec![]);
    }
    tape.named("GlobalAveragePool", &[&map], &["pooled"], vec![]);
    tape.named("Flatten", &["pooled"], &["features"], vec![attribute_int("axis", 1)]);
    let classifier = tape.named_constant("classifier", &[32, 10], &normal(&mut rng, 320, 0.5)).unwrap();
    tape.named("MatMul", &["features", &classifier], &["logits"], vec![]);
    let means = tape.named_constant("means", &[2, 32], &normal(&mut rng, 64, 0.01)).unwrap();
    let projection = tape.named_constant("projection", &[32, 16], &normal(&mut rng, 512, 0.2)).unwrap();
    let (axis, tiny) = (tape.integers(&[-1]), tape.scalar(1e-12));
    tape.named("Gather", &[&means, "domain"], &["mean"], vec![attribute_int("axis", 0)]);
    tape.named("Sub", &["features", "mean"], &["centred"], vec![]);
    tape.named("MatMul", &["centred", &projection], &["projected"], vec![]);
    tape.named("Mul", &["projected", "projected"], &["squares"], vec![]);
    tape.named("ReduceSum", &["squares", &axis], &["energy"], vec![attribute_int("keepdims", 1)]);
    tape.named("Add", &["energy", &tiny], &["energy.raised"], vec![]);
    tape.named("Sqrt", &["energy.raised"], &["norm"], vec![]);
    tape.named("Div", &["projected", "norm"], &["embedding"], vec![]);

    let (n, size) = (Size::Named("n"), Size::Fixed(32));
    let inputs = vec![
        value_info("image", DataType::Float, &[n, Size::Fixed(3), size, size]),
        value_info("domain", DataType::Int64, &[n]),
    ];
    let output = |name, width| value_info(name, DataType::Float, &[n, Size::Fixed(width)]);
    let outputs = vec![output("embedding", 16), output("features", 32), output("logits", 10)];
    let manifest = Manifest {
        format: FORMAT,
        name: "shapes".to_owned(),
        dimension: 16,
        input: Input { size: 32, mean: [0.5; 3], std: [0.5; 3] },
        domain_input: true,
        half_precision: false,
        sketch: SketchPreprocessing::best(),
        photo: PhotoPreprocessing::best(),
        licence: "Apache-2.0".to_owned(),
        origin: "generated".to_owned(),
    };
    (tape.network("shapes", inputs, outputs), manifest)
}

fn normal(rng: &mut Rng, count: usize, deviation: f32) -> Vec<f32> {
    (0..count).map(|_| deviation * rng.normal()).collect()
}
