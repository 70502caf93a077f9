//! The pickle machine, as much of it as a state dict needs.
//!
//! Values lie in one flat list and refer to each other by position, so that a value which contains itself, as a hostile
//! pickle can make, is merely data: nothing here or in [`super::legacy`] follows references more than a fixed number of
//! steps.
//!
//! Source: CPython's `Lib/pickletools.py`, which documents every instruction.

use std::collections::HashMap;

use super::TorchError;

/// Most instructions of one pickle: EfficientNet-Lite4 needs 25 thousand.
const MOST_INSTRUCTIONS: usize = 1_000_000;

/// Position of a value in [`Pickle::values`].
pub type Id = usize;

/// Type of the numbers of a storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorageType {
    Float,
    Double,
    Half,
    Long,
}

impl StorageType {
    /// Bytes of one number.
    pub fn width(self) -> usize {
        match self {
            Self::Half => 2,
            Self::Float => 4,
            Self::Double | Self::Long => 8,
        }
    }
}

/// The only names that a pickle may ask for. None of them is ever called: they say what is described.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Global {
    OrderedDict,
    RebuildTensor,
    Storage(StorageType),
}

impl Global {
    fn named(module: &str, name: &str) -> Result<Self, TorchError> {
        Ok(match (module, name) {
            ("collections", "OrderedDict") => Self::OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2") => Self::RebuildTensor,
            ("torch", "FloatStorage") => Self::Storage(StorageType::Float),
            ("torch", "DoubleStorage") => Self::Storage(StorageType::Double),
            ("torch", "HalfStorage") => Self::Storage(StorageType::Half),
            ("torch", "LongStorage") => Self::Storage(StorageType::Long),
            _ => return Err(TorchError::Global { module: module.to_owned(), name: name.to_owned() }),
        })
    }
}

/// What a pickle describes.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    None,
    Bool(bool),
    Int(i128),
    Text(String),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global),
    /// What stands for a storage: the tuple that identifies it.
    Persistent(Id),
    /// A tensor: the arguments that rebuild it.
    Tensor(Vec<Id>),
}

/// A pickle that was read to its end.
pub struct Pickle {
    values: Vec<Value>,
    root: Id,
    /// Bytes that it took up.
    pub length: usize,
}

impl Pickle {
    /// The value that the pickle describes.
    pub fn root(&self) -> &Value {
        &self.values[self.root]
    }

    /// The value at `id`, which another value of this pickle named.
    pub fn get(&self, id: Id) -> &Value {
        &self.values[id]
    }

    /// The text at `id`, if it is one.
    pub fn text(&self, id: Id) -> Option<&str> {
        match self.get(id) {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The number at `id`, if it is one that counts something.
    pub fn count(&self, id: Id) -> Option<usize> {
        match self.get(id) {
            Value::Int(count) => usize::try_from(*count).ok(),
            _ => None,
        }
    }

    /// The tuple of counts at `id`, if it is one.
    pub fn counts(&self, id: Id) -> Option<Vec<usize>> {
        match self.get(id) {
            Value::Tuple(items) => items.iter().map(|&item| self.count(item)).collect(),
            _ => None,
        }
    }
}

/// Reads the pickle at the start of `bytes[start..]`.
///
/// # Errors
/// [`TorchError::Opcode`] and [`TorchError::Global`] for what no state dict needs, [`TorchError::Truncated`],
/// [`TorchError::Malformed`], [`TorchError::Limit`].
pub fn parse(bytes: &[u8], start: usize) -> Result<Pickle, TorchError> {
    let mut machine = Machine { bytes, at: start, ..Machine::default() };
    for _ in 0..MOST_INSTRUCTIONS {
        if let Some(root) = machine.step()? {
            return Ok(Pickle { values: machine.values, root, length: machine.at - start });
        }
    }
    Err(TorchError::Limit { what: "instructions", limit: MOST_INSTRUCTIONS })
}

#[derive(Default)]
struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    values: Vec<Value>,
    stack: Vec<Id>,
    /// Heights of the stack at which a MARK lies.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl<'a> Machine<'a> {
    /// Carries out one instruction; returns the result at STOP.
    fn step(&mut self) -> Result<Option<Id>, TorchError> {
        let at = self.at;
        match self.byte()? {
            0x80 => self.protocol()?,
            b'.' => return self.pop().map(Some),
            b'N' => self.push(Value::None),
            0x88 => self.push(Value::Bool(true)),
            0x89 => self.push(Value::Bool(false)),
            b'K' => self.push_int::<1>(false)?,
            b'M' => self.push_int::<2>(false)?,
            b'J' => self.push_int::<4>(true)?,
            0x8a => self.long()?,
            b'X' => self.unicode()?,
            b'c' => self.global()?,
            b'(' => self.marks.push(self.stack.len()),
            b')' => self.push(Value::Tuple(Vec::new())),
            b'}' => self.push(Value::Dict(Vec::new())),
            b']' => self.push(Value::List(Vec::new())),
            b't' => self.tuple_from_mark()?,
            0x85 => self.tuple_of(1)?,
            0x86 => self.tuple_of(2)?,
            0x87 => self.tuple_of(3)?,
            b's' => self.set_items(2)?,
            b'u' => self.set_items_from_mark()?,
            b'a' => self.append(1)?,
            b'e' => self.append_from_mark()?,
            b'q' => self.put::<1>()?,
            b'r' => self.put::<4>()?,
            b'h' => self.fetch::<1>()?,
            b'j' => self.fetch::<4>()?,
            b'Q' => self.persistent()?,
            b'R' => self.reduce()?,
            b'b' => self.build()?,
            opcode => return Err(TorchError::Opcode { opcode, at }),
        }
        Ok(None)
    }

    fn malformed(&self, reason: &'static str) -> TorchError {
        TorchError::Malformed { at: self.at, reason }
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], TorchError> {
        let rest = &self.bytes[self.at..];
        let taken = usize::try_from(length).ok().and_then(|length| rest.get(..length));
        let taken = taken.ok_or(TorchError::Truncated { at: self.bytes.len(), length })?;
        self.at += taken.len();
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, TorchError> {
        Ok(self.take(1)?[0])
    }

    /// An unsigned number of `N` bytes, at most four.
    fn unsigned<const N: usize>(&mut self) -> Result<u32, TorchError> {
        let bytes = self.take(N as u64)?;
        Ok(bytes.iter().rev().fold(0, |number, &byte| number << 8 | u32::from(byte)))
    }

    fn push(&mut self, value: Value) {
        self.stack.push(self.values.len());
        self.values.push(value);
    }

    /// Takes the top of the stack, but nothing that lies below the last MARK.
    fn pop(&mut self) -> Result<Id, TorchError> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err(self.malformed("stack is empty"));
        }
        self.stack.pop().ok_or_else(|| self.malformed("stack is empty"))
    }

    fn pop_many(&mut self, count: usize) -> Result<Vec<Id>, TorchError> {
        let mut ids = (0..count).map(|_| self.pop()).collect::<Result<Vec<_>, _>>()?;
        ids.reverse();
        Ok(ids)
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>, TorchError> {
        let mark = self.marks.pop().ok_or_else(|| self.malformed("no mark"))?;
        Ok(self.stack.split_off(mark))
    }

    fn top(&mut self) -> Result<Id, TorchError> {
        let top = self.pop()?;
        self.stack.push(top);
        Ok(top)
    }

    fn protocol(&mut self) -> Result<(), TorchError> {
        match self.byte()? {
            0..=5 => Ok(()),
            _ => Err(self.malformed("protocol is unknown")),
        }
    }

    fn push_int<const N: usize>(&mut self, signed: bool) -> Result<(), TorchError> {
        let number = self.unsigned::<N>()?;
        self.push(Value::Int(if signed { i128::from(number as i32) } else { i128::from(number) }));
        Ok(())
    }

    /// A number of up to 16 bytes, two's complement: the file's magic number has ten.
    fn long(&mut self) -> Result<(), TorchError> {
        let length = self.byte()?;
        if length > 16 {
            return Err(self.malformed("integer of more than 128 bits"));
        }
        let bytes = self.take(u64::from(length))?;
        let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        let mut wide = [if negative { 0xff } else { 0 }; 16];
        wide[..bytes.len()].copy_from_slice(bytes);
        self.push(Value::Int(i128::from_le_bytes(wide)));
        Ok(())
    }

    fn unicode(&mut self) -> Result<(), TorchError> {
        let length = self.unsigned::<4>()?;
        let bytes = self.take(u64::from(length))?;
        let text = std::str::from_utf8(bytes).map_err(|_| self.malformed("text is not UTF-8"))?;
        self.push(Value::Text(text.to_owned()));
        Ok(())
    }

    fn line(&mut self) -> Result<&'a str, TorchError> {
        let rest = &self.bytes[self.at..];
        // Far longer than any name that is allowed, short enough for an error message.
        let window = &rest[..rest.len().min(256)];
        let end = window.iter().position(|&byte| byte == b'\n').ok_or_else(|| self.malformed("name without end"))?;
        let bytes = self.take(end as u64 + 1)?;
        std::str::from_utf8(&bytes[..end]).map_err(|_| self.malformed("name is not UTF-8"))
    }

    fn global(&mut self) -> Result<(), TorchError> {
        let (module, name) = (self.line()?, self.line()?);
        let global = Global::named(module, name)?;
        self.push(Value::Global(global));
        Ok(())
    }

    fn tuple_from_mark(&mut self) -> Result<(), TorchError> {
        let items = self.pop_to_mark()?;
        self.push(Value::Tuple(items));
        Ok(())
    }

    fn tuple_of(&mut self, count: usize) -> Result<(), TorchError> {
        let items = self.pop_many(count)?;
        self.push(Value::Tuple(items));
        Ok(())
    }

    fn set_items(&mut self, count: usize) -> Result<(), TorchError> {
        let items = self.pop_many(count)?;
        self.extend_dict(&items)
    }

    fn set_items_from_mark(&mut self) -> Result<(), TorchError> {
        let items = self.pop_to_mark()?;
        self.extend_dict(&items)
    }

    fn extend_dict(&mut self, items: &[Id]) -> Result<(), TorchError> {
        let (pairs, rest) = items.as_chunks::<2>();
        let dict = self.top()?;
        match &mut self.values[dict] {
            Value::Dict(entries) if rest.is_empty() => entries.extend(pairs.iter().map(|&[key, value]| (key, value))),
            _ => return Err(self.malformed("items are set on what is no dictionary")),
        }
        Ok(())
    }

    fn append(&mut self, count: usize) -> Result<(), TorchError> {
        let items = self.pop_many(count)?;
        self.extend_list(items)
    }

    fn append_from_mark(&mut self) -> Result<(), TorchError> {
        let items = self.pop_to_mark()?;
        self.extend_list(items)
    }

    fn extend_list(&mut self, items: Vec<Id>) -> Result<(), TorchError> {
        let list = self.top()?;
        match &mut self.values[list] {
            Value::List(entries) => entries.extend(items),
            _ => return Err(self.malformed("items are appended to what is no list")),
        }
        Ok(())
    }

    fn put<const N: usize>(&mut self) -> Result<(), TorchError> {
        let index = self.unsigned::<N>()?;
        let top = self.top()?;
        self.memo.insert(index, top);
        Ok(())
    }

    fn fetch<const N: usize>(&mut self) -> Result<(), TorchError> {
        let index = self.unsigned::<N>()?;
        let id = *self.memo.get(&index).ok_or_else(|| self.malformed("memo has no such entry"))?;
        self.stack.push(id);
        Ok(())
    }

    fn persistent(&mut self) -> Result<(), TorchError> {
        let id = self.pop()?;
        self.push(Value::Persistent(id));
        Ok(())
    }

    /// A call. There are two that a state dict makes; both are noted down, neither is made.
    fn reduce(&mut self) -> Result<(), TorchError> {
        let (arguments, callable) = (self.pop()?, self.pop()?);
        let value = match (&self.values[callable], &self.values[arguments]) {
            (Value::Global(Global::OrderedDict), Value::Tuple(items)) if items.is_empty() => Value::Dict(Vec::new()),
            (Value::Global(Global::RebuildTensor), Value::Tuple(items)) => Value::Tensor(items.clone()),
            _ => return Err(self.malformed("call that no state dict makes")),
        };
        self.push(value);
        Ok(())
    }

    /// Attributes of an object: a state dict has `_metadata`, which says nothing about the weights and is dropped.
    fn build(&mut self) -> Result<(), TorchError> {
        self.pop()?;
        let object = self.top()?;
        match self.values[object] {
            Value::Dict(_) => Ok(()),
            _ => Err(self.malformed("attributes are set on what is no dictionary")),
        }
    }
}
