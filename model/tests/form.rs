//! Laws of what is stored of a photo: the channel that carries its length and its hub correction.

use ndarray::{Array2, Array3, array};
use proptest::prelude::*;
use sketch_model::codebook::{Codebook, Hubs, Length};
use sketch_model::form::{Form, FormError};
use sketch_model::hubs::{Bank, BankError, Correction};
use std::iter;
use std::sync::Arc;

const D: usize = 12;

fn dot(a: &[f32], b: &[f32]) -> f64 {
    iter::zip(a, b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

/// Squared distance; a channel that one of them lacks is zero.
fn squared(drawing: &[f32], stored: &[f32]) -> f64 {
    let channel = f64::from(stored.get(drawing.len()).copied().unwrap_or(0.0));
    dot(drawing, drawing) - 2.0 * dot(drawing, stored) + dot(&stored[..drawing.len()], stored) + channel * channel
}

fn unit() -> impl Strategy<Value = Vec<f32>> {
    prop::collection::vec(-1.0f32..1.0, D).prop_filter_map("too short", |values| {
        let length = dot(&values, &values).sqrt() as f32;
        (length > 0.1).then(|| values.iter().map(|value| value / length).collect())
    })
}

fn rows(rows: &[Vec<f32>]) -> Array2<f32> {
    Array2::from_shape_vec((rows.len(), D), rows.concat()).unwrap()
}

fn bank() -> impl Strategy<Value = Bank> {
    (prop::collection::vec(unit(), 1..30), any::<prop::sample::Index>(), -0.5f32..0.0).prop_map(
        |(drawings, k, floor)| {
            let correction = Correction { neighbours: k.index(drawings.len()) + 1, strength: 0.5, floor };
            Bank::new(rows(&drawings).view(), 9, correction).unwrap()
        },
    )
}

fn codebook() -> impl Strategy<Value = Codebook> {
    (prop::collection::vec(unit(), 1..5), 0.0f32..=1.0).prop_map(|(prototypes, weight)| {
        let centroids =
            Array3::from_shape_fn((2, prototypes.len(), D / 2), |(i, j, l)| prototypes[j][i * D / 2 + l] / 2.0);
        Codebook::new(centroids, weight, 9).unwrap()
    })
}

proptest! {
    #[test]
    fn nearness_is_the_mean_of_the_nearest(bank in bank(), photo in unit(), drawings in prop::collection::vec(unit(), 1..30)) {
        let k = bank.correction().neighbours.min(drawings.len());
        let correction = Correction { neighbours: k, ..bank.correction() };
        let bank = Bank::new(rows(&drawings).view(), 9, correction).unwrap();
        let mut products: Vec<f64> = drawings.iter().map(|drawing| dot(drawing, &photo)).collect();
        products.sort_by(|a, b| b.total_cmp(a));
        let expected = products[..k].iter().sum::<f64>() / k as f64;
        // Values are kept in 127 steps: each is off by half a step at most.
        prop_assert!((f64::from(bank.nearness(&photo).unwrap()) - expected).abs() < 0.5 / 127.0 * (D as f64).sqrt());
    }

    #[test]
    fn a_bank_survives_its_bytes(bank in bank()) {
        let back = Bank::from_bytes(&bank.to_bytes()).unwrap();
        prop_assert_eq!(&back, &bank);
        prop_assert_eq!(back.tag(), bank.tag());
    }

    #[test]
    fn any_bytes_are_a_bank_or_refused(bank in bank(), at in any::<prop::sample::Index>(), byte in any::<u8>(), end in any::<prop::sample::Index>()) {
        let mut bytes = bank.to_bytes();
        let position = at.index(bytes.len());
        bytes[position] = byte;
        if let Ok(other) = Bank::from_bytes(&bytes) {
            prop_assert_eq!(other.to_bytes(), bytes.clone());
            let nearness = other.nearness(&vec![1.0; other.dimension()]).unwrap();
            prop_assert!(!nearness.is_nan());
        }
        let end = end.index(bytes.len());
        prop_assert!(Bank::from_bytes(&bytes[..end]).is_err());
    }

    /// Whatever the drawing, a correction adds the same to the squared distance of a photo.
    #[test]
    fn a_correction_is_a_bias(bank in bank(), photo in unit(), drawing in unit()) {
        let expected = f64::from(bank.nearness(&photo).unwrap() - bank.correction().floor).max(0.0);
        let stored = Form::plain(Some(Arc::new(bank))).apply(&photo).unwrap();
        prop_assert_eq!(stored.len(), D + 1);
        prop_assert!((squared(&drawing, &stored) - squared(&drawing, &photo) - expected).abs() < 1e-5);
    }

    /// ‖q − s‖² = ‖q‖² + ‖x‖² − 2 ⟨q, F⟩ + bias, as long as the fused embedding is the shorter one.
    #[test]
    fn completed_embeddings_rank_by_inner_product(codebook in codebook(), bank in bank(), photo in unit(), drawing in unit()) {
        let fused = codebook.fuse(&photo).unwrap();
        prop_assume!(dot(&fused, &fused) <= 1.0);
        let bias = f64::from(bank.bias(&photo, 0.25).unwrap());
        let codebook = codebook.with_hubs(Hubs { bank: bank.tag(), strength: 0.25 }).unwrap();
        let form = Form::fused(codebook, Some(Arc::new(bank))).unwrap();
        let stored = form.apply(&photo).unwrap();
        prop_assert_eq!(stored.len(), form.dimension(D));
        let expected = dot(&drawing, &drawing) + 1.0 - 2.0 * dot(&drawing, &fused) + bias;
        prop_assert!((squared(&drawing, &stored) - expected).abs() < 1e-5);
    }

    /// The patent's form has no channel; nor has that of version 0.1.0.
    #[test]
    fn other_lengths_stay_as_they_were(codebook in codebook(), photo in unit()) {
        for length in [Length::Own, Length::Scaled] {
            let codebook = codebook.clone().with_length(length);
            let fused = codebook.fuse(&photo).unwrap();
            prop_assert_eq!(Form::fused(codebook, None).unwrap().apply(&photo).unwrap(), fused);
        }
    }
}

#[test]
fn without_codebook_and_bank_the_embedding_is_stored() {
    let form = Form::plain(None);
    assert_eq!((form.apply(&[0.5; 3]).unwrap(), form.tag(), form.dimension(3)), (vec![0.5; 3], 0, 3));
}

#[test]
fn a_codebook_takes_no_other_bank() {
    let bank = |value: f32| {
        let correction = Correction { neighbours: 1, strength: 0.5, floor: 0.0 };
        Arc::new(Bank::new(array![[value, 0.0]].view(), 9, correction).unwrap())
    };
    let hubs = Hubs { bank: bank(1.0).tag(), strength: 0.5 };
    let codebook = Codebook::new(Array3::zeros((1, 1, 2)), 0.5, 9).unwrap().with_hubs(hubs).unwrap();
    assert!(Form::fused(codebook.clone(), Some(bank(1.0))).is_ok());
    for other in [Some(bank(2.0)), None] {
        assert!(matches!(Form::fused(codebook.clone(), other), Err(FormError::OtherBank { .. })));
    }
    // Without a correction, any will do.
    let plain = codebook.with_hubs(Hubs::default()).unwrap();
    assert_eq!(Form::fused(plain.clone(), Some(bank(2.0))).unwrap().tag(), plain.tag());
    for hubs in [Hubs { bank: 0, strength: 0.5 }, Hubs { bank: 1, strength: 0.0 }, Hubs { bank: 1, strength: f32::NAN }]
    {
        assert!(plain.clone().with_hubs(hubs).is_err());
    }
}

#[test]
fn banks_refuse_what_does_not_fit() {
    let correction = Correction { neighbours: 2, strength: 0.5, floor: 0.0 };
    let two = array![[1.0, 0.0], [0.0, 1.0]];
    let bank = Bank::new(two.view(), 9, correction).unwrap();
    assert!(matches!(bank.nearness(&[1.0]), Err(BankError::Dimension { actual: 1, expected: 2 })));
    assert!(matches!(bank.nearness(&[1.0, f32::NAN]), Err(BankError::Value { position: 1, .. })));
    let refused = |correction| Bank::new(two.view(), 9, correction).unwrap_err();
    for neighbours in [0, 3] {
        assert!(matches!(refused(Correction { neighbours, ..correction }), BankError::Neighbours { .. }));
    }
    for strength in [-0.1, 101.0, f32::NAN] {
        assert!(matches!(refused(Correction { strength, ..correction }), BankError::Strength { .. }));
    }
    assert!(matches!(refused(Correction { floor: f32::NAN, ..correction }), BankError::Value { .. }));
    let error = Bank::new(Array2::zeros((0, 2)).view(), 9, correction).unwrap_err();
    assert!(matches!(error, BankError::Size { drawings: 0, dimension: 2 }));
    assert!(matches!(Bank::new(Array2::zeros((1, 16_000)).view(), 9, correction), Err(BankError::Size { .. })));
    let zero = Bank::new(Array2::zeros((2, 2)).view(), 9, correction).unwrap();
    assert_eq!(zero.nearness(&[1.0, 1.0]).unwrap(), 0.0);
}
