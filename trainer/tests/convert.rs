//! The converter of PyTorch files, `tools/torch_to_safetensors.py`. Needs Python.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sketch_trainer::weights::{StateDict, Tensor, read_state_dict};

const MAGIC: &[u8] = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";
const PROTOCOL: &[u8] = b"\x80\x02M\xe9\x03.";

fn text(text: &str) -> Vec<u8> {
    [b"X".as_slice(), &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat()
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

/// A file of a state dict with one storage of six numbers and one of an integer.
fn file(little_endian: bool, state: &[u8]) -> Vec<u8> {
    let flag: &[u8] = if little_endian { b"\x88" } else { b"\x89" };
    let facts = [b"\x80\x02}".as_slice(), &text("little_endian"), flag, b"s."].concat();
    let keys = [b"\x80\x02](".as_slice(), &text("0"), &text("1"), b"e."].concat();
    let numbers: Vec<u8> = (0..6).flat_map(|number| (number as f32).to_le_bytes()).collect();
    let storages = [&6u64.to_le_bytes()[..], &numbers, &1u64.to_le_bytes(), &7u64.to_le_bytes()].concat();
    [MAGIC, PROTOCOL, &facts, state, &keys, &storages].concat()
}

fn state(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let items: Vec<u8> = entries.iter().flat_map(|(name, value)| [text(name), value.clone()].concat()).collect();
    [b"\x80\x02ccollections\nOrderedDict\n)R(".as_slice(), &items, b"u."].concat()
}

fn small() -> Vec<u8> {
    file(
        true,
        &state(&[
            ("a", tensor("FloatStorage", "0", 1, &[2, 2], &[2, 1])),
            ("b", tensor("FloatStorage", "0", 0, &[2, 3], &[1, 2])),
            ("n", tensor("LongStorage", "1", 0, &[], &[])),
        ]),
    )
}

/// A folder that goes away with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sketch-convert-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// The converter's output, or the last line of its error.
    fn convert(&self, source: &Path) -> Result<StateDict, String> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/torch_to_safetensors.py");
        let output = self.0.join("out.safetensors");
        let run = Command::new("python3").arg(script).arg(source).arg(&output).output().unwrap();
        let words = String::from_utf8_lossy(&run.stderr).lines().last().unwrap_or_default().to_owned();
        if run.status.success() { Ok(read_state_dict(&output).unwrap()) } else { Err(words) }
    }

    fn convert_bytes(&self, bytes: &[u8]) -> Result<StateDict, String> {
        let source = self.0.join("net.pth");
        fs::write(&source, bytes).unwrap();
        self.convert(&source)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn tensors_are_read_through_offset_and_strides() {
    let folder = Folder::new("read");
    let state = folder.convert_bytes(&small()).unwrap();
    assert_eq!(state["a"], Tensor { shape: vec![2, 2], values: vec![1.0, 2.0, 3.0, 4.0] });
    assert_eq!(state["b"], Tensor { shape: vec![2, 3], values: vec![0.0, 2.0, 4.0, 1.0, 3.0, 5.0] });
    assert_eq!(state.len(), 2);

    // The same from a wheel.
    let wheel = folder.0.join("package.whl");
    let zip = Command::new("python3").args(["-m", "zipfile", "-c"]).arg(&wheel).arg(folder.0.join("net.pth")).status();
    assert!(zip.unwrap().success());
    assert_eq!(folder.convert(&wheel).unwrap(), state);
}

#[test]
fn functions_are_refused_and_not_called() {
    let folder = Folder::new("call");
    let called = folder.0.join("called");
    let touch = format!("touch {}", called.display());
    let pickle = [b"\x80\x02cos\nsystem\n".as_slice(), &text(&touch), b"\x85R."].concat();
    let words = folder.convert_bytes(&file(true, &pickle)).unwrap_err();
    assert!(words.ends_with("weights ask for \"os.system\", which no state dict needs"), "{words}");
    assert!(!called.exists());
}

#[test]
fn damaged_files_are_refused() {
    let folder = Folder::new("damaged");
    let whole = small();
    for length in [0, 10, MAGIC.len() + 3, whole.len() / 2, whole.len() - 20, whole.len() - 1] {
        assert!(folder.convert_bytes(&whole[..length]).is_err(), "{length} bytes of {} were read", whole.len());
    }
    assert!(folder.convert_bytes(b"\x89PNG\r\n\x1a\n").is_err());
    assert!(folder.convert_bytes(&file(false, &state(&[]))).unwrap_err().contains("little-endian"));
    for (offset, shape, strides) in [(3, vec![2, 2], vec![2, 1]), (0, vec![2, 2], vec![200, 1])] {
        let outside = state(&[
            ("a", tensor("FloatStorage", "0", offset, &shape, &strides)),
            ("n", tensor("LongStorage", "1", 0, &[], &[])),
        ]);
        let words = folder.convert_bytes(&file(true, &outside)).unwrap_err();
        assert!(words.contains("tensor \"a\" does not fit its storage"), "{words}");
    }
}
