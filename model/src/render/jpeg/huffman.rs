//! Huffman codes of coefficients, read by table lookups.
//!
//! Source: ITU-T T.81, annex C (codes), F.1.2 and F.2.2 (coefficients).

use std::rc::Rc;

use super::idct::{BLOCK, ZIGZAG};

/// Codes of up to so many bits are found by one lookup.
const PEEK: u32 = 12;
const ENTRIES: usize = 1 << PEEK;
const LONGEST: u32 = 16;

/// The codes of a component.
#[derive(Clone, Default)]
pub(super) struct Tables {
    pub dc: Option<Rc<DcTable>>,
    pub ac: Option<Rc<AcTable>>,
}

/// A Huffman code.
struct Code {
    /// By the next bits: length of the code, 0 if it is longer than the lookup, and symbol.
    short: Box<[(u8, u8); ENTRIES]>,
    /// By length: the first code that is longer, as 16 bits, and what to add to a code for its place in `symbols`.
    long: [(u32, i32); LONGEST as usize + 1],
    symbols: Vec<u8>,
}

impl Code {
    /// `counts`: symbols with a code of 1, 2, … bits; `None` if there are more codes than bits allow.
    fn new(counts: &[u8; 16], symbols: &[u8]) -> Option<Self> {
        let mut short = Box::new([(0, 0); ENTRIES]);
        let mut long = [(0, 0); LONGEST as usize + 1];
        let (mut code, mut place) = (0u32, 0);
        for (length, &count) in (1..).zip(counts) {
            long[length as usize].1 = place as i32 - code as i32;
            for &symbol in symbols.get(place..place + usize::from(count))? {
                if length <= PEEK {
                    let first = (code << (PEEK - length)) as usize;
                    short.get_mut(first..first + (1 << (PEEK - length)))?.fill((length as u8, symbol));
                }
                code += 1;
            }
            if code > 1 << length {
                return None;
            }
            place += usize::from(count);
            long[length as usize].0 = code << (LONGEST - length);
            code <<= 1;
        }
        Some(Self { short, long, symbols: symbols.to_vec() })
    }

    fn next(&self, reader: &mut Reader) -> Option<u8> {
        let (length, symbol) = self.short[reader.peek(PEEK)];
        if length > 0 {
            reader.consume(length.into());
            return Some(symbol);
        }
        let bits = reader.peek(LONGEST) as u32;
        let length = (PEEK + 1..=LONGEST).find(|&length| bits < self.long[length as usize].0)?;
        reader.consume(length);
        let place = (bits >> (LONGEST - length)) as i32 + self.long[length as usize].1;
        self.symbols.get(usize::try_from(place).ok()?).copied()
    }
}

/// Codes of the first coefficient of a block, the difference from the last block's.
pub(super) struct DcTable(Code);

impl DcTable {
    pub(super) fn new(counts: &[u8; 16], symbols: &[u8]) -> Option<Self> {
        // A difference has at most 11 bits; 12 are for pictures of 12 bits.
        symbols.iter().all(|&bits| bits <= 11).then(|| Code::new(counts, symbols))?.map(Self)
    }
}

/// Codes of the other coefficients: a run of zeros, and the bits of the coefficient after it.
pub(super) struct AcTable {
    code: Code,
    /// By the next bits: the first coefficient.
    values: Box<[Value; ENTRIES]>,
    /// By the next bits: as many coefficients as fit into them.
    skips: Box<[Skip; ENTRIES]>,
}

/// A coefficient. `bits`: of its code and itself, 0 if they are more than the lookup has or it ends the block.
#[derive(Clone, Copy, Default)]
struct Value {
    value: i16,
    run: u8,
    bits: u8,
}

/// Several coefficients, as few bytes as the caches like: `ends << 15 | length << 8 | bits`.
///
/// Bits: as above; length: coefficients with the zeros before them; ends: whether the rest of the block is zero.
#[derive(Clone, Copy, Default)]
struct Skip(u16);

impl Skip {
    fn new(bits: u8, length: u8, ends: bool) -> Self {
        Self(u16::from(ends) << 15 | u16::from(length) << 8 | u16::from(bits))
    }

    fn bits(self) -> u32 {
        u32::from(self.0 & 0xff)
    }

    fn length(self) -> usize {
        usize::from(self.0 >> 8 & 0x7f)
    }

    fn ends(self) -> bool {
        self.0 >> 15 != 0
    }
}

impl AcTable {
    pub(super) fn new(counts: &[u8; 16], symbols: &[u8]) -> Option<Self> {
        let code = Code::new(counts, symbols)?;
        let mut values = Box::new([Value::default(); ENTRIES]);
        let mut skips = Box::new([Skip::default(); ENTRIES]);
        for (next, (value, skip)) in values.iter_mut().zip(skips.iter_mut()).enumerate() {
            let (length, symbol) = code.short[next];
            let (run, size) = (symbol >> 4, symbol & 15);
            let bits = length + size;
            if length > 0 && size > 0 && u32::from(bits) <= PEEK {
                let raw = next >> (PEEK - u32::from(bits)) & ((1 << size) - 1);
                *value = Value { value: extended(raw, size.into()) as i16, run, bits };
            }
            *skip = Skip::of(&code, next);
        }
        Some(Self { code, values, skips })
    }
}

impl Skip {
    fn of(code: &Code, next: usize) -> Self {
        let (mut taken, mut length) = (0, 0);
        loop {
            let (bits, symbol) = code.short[(next << taken) & (ENTRIES - 1)];
            let after = taken + bits + (symbol & 15);
            if bits == 0 || u32::from(after) > PEEK {
                return Self::new(taken, length, false);
            }
            if is_end(symbol) {
                return Self::new(after, length, true);
            }
            let coefficients = length + (symbol >> 4) + 1;
            if usize::from(coefficients) > BLOCK {
                return Self::new(taken, length, false);
            }
            (taken, length) = (after, coefficients);
        }
    }
}

/// Whether the rest of the block is zero.
fn is_end(symbol: u8) -> bool {
    const SIXTEEN_ZEROS: u8 = 0xf0;
    symbol & 15 == 0 && symbol != SIXTEEN_ZEROS
}

/// The number that `size` bits stand for.
fn extended(bits: usize, size: u32) -> i32 {
    let bits = bits as i32;
    if size > 0 && bits < 1 << (size - 1) { bits - (1 << size) + 1 } else { bits }
}

/// Reads the bits of a scan.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The next bits from the top. Below them may be more, which are read again.
    buffer: u64,
    /// Bits in the buffer that were counted; less than none if more were taken than the scan has.
    bits: i32,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, buffer: 0, bits: 0 }
    }

    /// Makes sure that there are 56 bits, or all that are left.
    #[inline(always)]
    fn refill(&mut self) {
        let Some(next) = self.bytes.get(self.at..self.at + 8) else { return self.refill_slowly() };
        let next = u64::from_be_bytes(next.try_into().expect("8 bytes"));
        const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
        // The top bit of each byte that is 0xff.
        let marks = ((next & LOW) + 0x0101_0101_0101_0101) & next & !LOW;
        if marks != 0 {
            return self.refill_slowly();
        }
        self.buffer |= next >> self.bits;
        self.at += (63 - self.bits) as usize / 8;
        self.bits |= 56;
    }

    /// Byte by byte, up to a marker.
    fn refill_slowly(&mut self) {
        while self.bits < 56
            && let Some(&byte) = self.bytes.get(self.at)
        {
            if byte == 0xff {
                if self.bytes.get(self.at + 1) != Some(&0) {
                    return;
                }
                self.at += 1;
            }
            self.at += 1;
            self.buffer |= u64::from(byte) << (56 - self.bits);
            self.bits += 8;
        }
    }

    #[inline(always)]
    fn peek(&self, bits: u32) -> usize {
        (self.buffer >> (64 - bits)) as usize
    }

    #[inline(always)]
    fn consume(&mut self, bits: u32) {
        self.buffer <<= bits;
        self.bits -= bits as i32;
    }

    /// Reads a number of up to 15 bits.
    fn number(&mut self, size: u32) -> i32 {
        // Two steps, as a shift by 64 would be.
        let bits = (self.buffer >> 1) >> (63 - size);
        self.consume(size);
        extended(bits as usize, size)
    }

    /// Whether more bits were read than there are.
    pub(super) fn has_overrun(&self) -> bool {
        self.bits < 0
    }

    /// Goes on behind a restart marker.
    pub(super) fn restart(&mut self) -> Option<()> {
        match self.bytes.get(self.at..self.at + 2)? {
            [0xff, 0xd0..=0xd7] => {
                *self = Self { at: self.at + 2, ..Self::new(self.bytes) };
                Some(())
            }
            _ => None,
        }
    }

    pub(super) fn is_at_end_of_image(&self) -> bool {
        self.bytes.get(self.at..self.at + 2) == Some(&[0xff, 0xd9])
    }

    /// Reads a block: the coefficients up to `last`, in the order of the file, times `quantisation`; others may be left
    /// out. Returns the last that is not zero among those.
    #[inline]
    pub(super) fn block(
        &mut self,
        tables: &Tables,
        dc: &mut i32,
        quantisation: &[f32; BLOCK],
        last: usize,
        block: &mut [f32; BLOCK],
    ) -> Option<usize> {
        let (means, ac) = (tables.dc.as_deref()?, tables.ac.as_deref()?);
        self.refill();
        let size = means.0.next(self)?;
        *dc = dc.checked_add(self.number(size.into()))?;
        if last > 0 {
            block.fill(0.0);
        }
        block[0] = *dc as f32 * quantisation[0];
        let (mut next, mut found) = (1, 0);
        while next <= last {
            self.refill();
            let Value { value, run, bits } = ac.values[self.peek(PEEK)];
            let mut value = i32::from(value);
            if bits > 0 {
                self.consume(bits.into());
                next += usize::from(run);
            } else {
                let symbol = ac.code.next(self)?;
                if is_end(symbol) {
                    return Some(found);
                }
                next += usize::from(symbol >> 4);
                value = self.number((symbol & 15).into());
            }
            let place = usize::from(*ZIGZAG.get(next)?);
            if next <= last {
                block[place] = value as f32 * quantisation[place];
                found = next;
            }
            next += 1;
        }
        self.skip(ac, next)?;
        Some(found)
    }

    /// Skips what is left of a block from coefficient `next` on.
    #[inline]
    fn skip(&mut self, ac: &AcTable, mut next: usize) -> Option<()> {
        while next < BLOCK {
            self.refill();
            for _ in 0..4 {
                let skip = ac.skips[self.peek(PEEK)];
                let after = next + skip.length();
                // Codes behind the end of the block are the next block's, which has another table for its first.
                if skip.bits() == 0 || after + usize::from(skip.ends()) > BLOCK {
                    self.refill();
                    let symbol = ac.code.next(self)?;
                    if is_end(symbol) {
                        return Some(());
                    }
                    self.consume((symbol & 15).into());
                    next += usize::from(symbol >> 4) + 1;
                    break;
                }
                self.consume(skip.bits());
                next = after;
                if skip.ends() || next == BLOCK {
                    return Some(());
                }
            }
        }
        (next == BLOCK).then_some(())
    }
}
