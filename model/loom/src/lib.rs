//! `sketch_model::inference::slot` and the few names that it takes from elsewhere.

#[path = "../../src/inference/slot.rs"]
pub mod slot;

pub mod digest {
    pub type Sha256Digest = [u8; 32];
}

pub mod inference {
    pub mod device {
        /// Any number is a device.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub struct Device(pub u32);

        impl Device {
            pub fn code(self) -> u32 {
                self.0
            }

            pub fn from_code(code: u32) -> Option<Self> {
                Some(Self(code))
            }
        }
    }

    pub mod encoder {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Domain {
            Sketch = 0,
            Photo = 1,
        }
    }
}
