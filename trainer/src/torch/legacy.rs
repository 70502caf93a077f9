//! The file format of PyTorch before 1.6: five pickles one after the other, then the storages.
//!
//! The pickles are a magic number, the protocol, facts about the machine, the state dict, and the keys of the storages
//! in the order in which they follow; each storage is its length as int64 and its numbers, little-endian.
//!
//! Source: `_legacy_save` in PyTorch's `torch/serialization.py`.

use std::collections::{BTreeMap, HashMap};

use half::f16;

use super::pickle::{self, Global, Id, Pickle, StorageType, Value};
use super::{StateDict, Tensor, TorchError};

/// `torch.serialization.MAGIC_NUMBER`.
const MAGIC: i128 = 0x1950_a86a_20f9_469c_fc6c;
/// `torch.serialization.PROTOCOL_VERSION`.
const PROTOCOL: i128 = 1001;
/// Most numbers of all tensors together, 1 GiB of f32: tensors may share a storage, so the file's size is no bound.
const MOST_VALUES: usize = 1 << 28;

/// Reads a state dict from the bytes of a `.pth` file.
///
/// # Errors
/// [`TorchError`], all but those of files and wheels.
pub fn parse_state_dict(bytes: &[u8]) -> Result<StateDict, TorchError> {
    let mut at = 0;
    let mut next = || {
        let pickle = pickle::parse(bytes, at)?;
        at += pickle.length;
        Ok::<_, TorchError>(pickle)
    };
    let begins = |pickle: &Pickle, number| *pickle.root() == Value::Int(number);
    if !begins(&next().map_err(not_torch)?, MAGIC) || !begins(&next()?, PROTOCOL) {
        return Err(TorchError::NotTorch);
    }
    check_little_endian(&next()?)?;
    let (state, keys) = (next()?, next()?);
    let descriptions = describe_tensors(&state)?;
    let storages = read_storages(&bytes[at..], &keys, &storage_types(&descriptions)?)?;
    materialise(&descriptions, &storages)
}

/// A file of another kind fails in its first bytes; what the machine makes of them is of no use to anybody.
fn not_torch(error: TorchError) -> TorchError {
    match error {
        TorchError::Global { .. } => error,
        _ => TorchError::NotTorch,
    }
}

fn check_little_endian(facts: &Pickle) -> Result<(), TorchError> {
    let Value::Dict(entries) = facts.root() else { return Err(TorchError::NotTorch) };
    let entry = entries.iter().find(|(key, _)| facts.text(*key) == Some("little_endian"));
    match entry.map(|(_, value)| facts.get(*value)) {
        Some(Value::Bool(true)) => Ok(()),
        Some(Value::Bool(false)) => Err(TorchError::BigEndian),
        _ => Err(TorchError::NotTorch),
    }
}

/// What the state dict says about one tensor.
struct Description<'a> {
    name: &'a str,
    key: &'a str,
    r#type: StorageType,
    offset: usize,
    shape: Vec<usize>,
    strides: Vec<usize>,
}

fn describe_tensors(state: &Pickle) -> Result<Vec<Description<'_>>, TorchError> {
    let Value::Dict(entries) = state.root() else { return Err(TorchError::NotStateDict) };
    let describe = |&(name, tensor): &(Id, Id)| describe_tensor(state, name, tensor).ok_or(TorchError::NotStateDict);
    entries.iter().map(describe).collect()
}

fn describe_tensor(state: &Pickle, name: Id, tensor: Id) -> Option<Description<'_>> {
    let Value::Tensor(arguments) = state.get(tensor) else { return None };
    // Then come requires_grad and hooks, which say nothing about the numbers.
    let &[storage, offset, shape, strides, ..] = arguments.as_slice() else { return None };
    let Value::Persistent(identity) = state.get(storage) else { return None };
    let Value::Tuple(identity) = state.get(*identity) else { return None };
    // The kind of object, its type, its key, its device, its length, and a view of another storage: never written by
    // anything newer than PyTorch 0.4.
    let &[kind, r#type, key, _, _, view] = identity.as_slice() else { return None };
    if state.text(kind) != Some("storage") || *state.get(view) != Value::None {
        return None;
    }
    let Value::Global(Global::Storage(r#type)) = *state.get(r#type) else { return None };
    Some(Description {
        name: state.text(name)?,
        key: state.text(key)?,
        r#type,
        offset: state.count(offset)?,
        shape: state.counts(shape)?,
        strides: state.counts(strides)?,
    })
}

/// The type of each storage by key; two tensors may share one, but must agree on what it is.
fn storage_types<'a>(descriptions: &[Description<'a>]) -> Result<HashMap<&'a str, StorageType>, TorchError> {
    let mut types = HashMap::new();
    for description in descriptions {
        if *types.entry(description.key).or_insert(description.r#type) != description.r#type {
            return Err(TorchError::Storage { name: description.name.to_owned() });
        }
    }
    Ok(types)
}

struct Storage<'a> {
    r#type: StorageType,
    bytes: &'a [u8],
}

fn read_storages<'a>(
    mut rest: &'a [u8],
    keys: &'a Pickle,
    types: &HashMap<&str, StorageType>,
) -> Result<HashMap<&'a str, Storage<'a>>, TorchError> {
    let Value::List(keys_in_order) = keys.root() else { return Err(TorchError::NotTorch) };
    let whole = rest.len();
    let mut take = |length: u64| {
        let parts = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length));
        let (taken, left) = parts.ok_or(TorchError::Truncated { at: whole, length })?;
        rest = left;
        Ok::<_, TorchError>(taken)
    };
    let mut storages = HashMap::new();
    for &key in keys_in_order {
        let key = keys.text(key).ok_or(TorchError::NotTorch)?;
        let Some(&r#type) = types.get(key) else {
            return Err(TorchError::MissingStorage { key: key.to_owned() });
        };
        let count = take(8)?.iter().rev().fold(0, |count: u64, &byte| count << 8 | u64::from(byte));
        let bytes = take(count.saturating_mul(r#type.width() as u64))?;
        storages.insert(key, Storage { r#type, bytes });
    }
    Ok(storages)
}

fn materialise(
    descriptions: &[Description<'_>],
    storages: &HashMap<&str, Storage<'_>>,
) -> Result<StateDict, TorchError> {
    let mut left = MOST_VALUES;
    let mut state = BTreeMap::new();
    for description in descriptions {
        let missing = || TorchError::MissingStorage { key: description.key.to_owned() };
        let storage = storages.get(description.key).ok_or_else(missing)?;
        let refused = || TorchError::Storage { name: description.name.to_owned() };
        let count = count_values(description, storage).ok_or_else(refused)?;
        left = left.checked_sub(count).ok_or(TorchError::Limit { what: "values", limit: MOST_VALUES })?;
        let tensor = Tensor { shape: description.shape.clone(), values: gather(description, storage, count) };
        state.insert(description.name.to_owned(), tensor);
    }
    Ok(state)
}

/// Number of values of a tensor; `None` unless all of them lie in its storage.
fn count_values(description: &Description<'_>, storage: &Storage<'_>) -> Option<usize> {
    let available = storage.bytes.len() / storage.r#type.width();
    let (shape, strides) = (&description.shape, &description.strides);
    let count = shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size))?;
    // A tensor expanded by strides of zero could claim any number of values.
    if shape.len() != strides.len() || count > available {
        return None;
    }
    if count == 0 {
        return Some(0);
    }
    let last = shape
        .iter()
        .zip(strides)
        .try_fold(description.offset, |last, (&size, &stride)| last.checked_add((size - 1).checked_mul(stride)?))?;
    (last < available).then_some(count)
}

/// The values of a tensor, row-major, `count` of them.
fn gather(description: &Description<'_>, storage: &Storage<'_>, count: usize) -> Vec<f32> {
    let mut index = vec![0; description.shape.len()];
    let mut position = description.offset;
    let mut values = Vec::with_capacity(count);
    for _ in 0..count {
        values.push(number(storage, position));
        for axis in (0..index.len()).rev() {
            index[axis] += 1;
            position += description.strides[axis];
            if index[axis] < description.shape[axis] {
                break;
            }
            position -= description.strides[axis] * index[axis];
            index[axis] = 0;
        }
    }
    values
}

fn number(storage: &Storage<'_>, position: usize) -> f32 {
    let width = storage.r#type.width();
    let bytes = &storage.bytes[position * width..(position + 1) * width];
    let mut wide = [0; 8];
    wide[..width].copy_from_slice(bytes);
    let bits = u64::from_le_bytes(wide);
    match storage.r#type {
        StorageType::Float => f32::from_bits(bits as u32),
        StorageType::Half => f16::from_bits(bits as u16).to_f32(),
        StorageType::Double => f64::from_bits(bits) as f32,
        StorageType::Long => bits as i64 as f32,
    }
}
