//! Rounding to fewer bits in the direction that keeps a bound sure.

use half::bf16;

/// The least single-precision number that is not below `value`.
pub fn up(value: f64) -> f32 {
    let near = value as f32;
    if f64::from(near) < value { near.next_up() } else { near }
}

/// The greatest single-precision number that is not above `value`.
pub fn down(value: f64) -> f32 {
    let near = value as f32;
    if f64::from(near) > value { near.next_down() } else { near }
}

/// The least `bf16` that is not below `value`, which is not negative.
pub fn up_bf16(value: f64) -> bf16 {
    let bits = up(value).to_bits();
    let cut = bits & 0xffff != 0;
    bf16::from_bits((bits >> 16) as u16 + u16::from(cut))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bounds_are_sure_and_near(value in 1e-30f64..1e30) {
            prop_assert!(f64::from(up(value)) >= value && f64::from(down(value)) <= value);
            prop_assert!(f64::from(up(value).next_down()) < value);
            let coarse = up_bf16(value).to_f64();
            prop_assert!(coarse >= value && coarse <= value * (1.0 + 1.0 / 100.0));
        }
    }

    #[test]
    fn exact_numbers_stay() {
        assert_eq!((up(0.5), down(0.5), up_bf16(0.5).to_f32(), up_bf16(0.0).to_f32()), (0.5, 0.5, 0.5, 0.0));
    }
}
