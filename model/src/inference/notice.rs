//! A short text that one process writes and all read, in memory that they share.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU8, AtomicU32, fence};

/// Longest text, in bytes.
const LENGTH: usize = 8192;

/// A text, with a number that is odd while it is being written.
#[derive(Debug)]
pub struct Notice {
    version: AtomicU32,
    length: AtomicU32,
    bytes: [AtomicU8; LENGTH],
}

impl Default for Notice {
    fn default() -> Self {
        Self { version: 0.into(), length: 0.into(), bytes: std::array::from_fn(|_| 0.into()) }
    }
}

impl Notice {
    /// Writes a text; what is too long is cut. Only one process may write.
    pub fn write(&self, text: &str) {
        let version = self.version.load(Relaxed) | 1;
        self.version.store(version, Relaxed);
        fence(Release);
        let end = text.floor_char_boundary(LENGTH);
        for (byte, &new) in self.bytes.iter().zip(&text.as_bytes()[..end]) {
            byte.store(new, Relaxed);
        }
        self.length.store(end as u32, Relaxed);
        self.version.store(version.wrapping_add(1), Release);
    }

    /// Reads the text as it was written at one moment; empty if it changes all the time, or its writer died while writing.
    pub fn read(&self) -> String {
        const TRIES: usize = 1000;
        for _ in 0..TRIES {
            let before = self.version.load(Acquire);
            let length = (self.length.load(Relaxed) as usize).min(LENGTH);
            let bytes: Vec<u8> = self.bytes[..length].iter().map(|byte| byte.load(Relaxed)).collect();
            fence(Acquire);
            if before.is_multiple_of(2) && self.version.load(Relaxed) == before {
                return String::from_utf8_lossy(&bytes).into_owned();
            }
            std::hint::spin_loop();
        }
        String::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;
    use std::thread;

    #[test]
    fn a_reader_sees_one_text_and_no_mixture() {
        let notice = Notice::default();
        assert_eq!(notice.read(), "");
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                for i in 0..20_000usize {
                    notice.write(&char::from(b'a' + (i % 26) as u8).to_string().repeat(1 + i % 300));
                }
                over.store(true, Release);
            });
            while !over.load(Acquire) {
                let text = notice.read();
                assert!(text.chars().all(|letter| text.starts_with(letter)), "{text}");
            }
        });
    }

    #[test]
    fn a_long_text_is_cut_between_letters() {
        let notice = Notice::default();
        notice.write(&"é".repeat(LENGTH));
        assert_eq!(notice.read(), "é".repeat(LENGTH / 2));
    }
}
