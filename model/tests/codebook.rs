//! Laws of codebooks: encoding, fusing, training, and their file format.

use ndarray::{Array2, Array3, ArrayView2, array, s};
use proptest::prelude::*;
use sketch_model::codebook::{Codebook, CodebookError, CodebookOptions, Hubs, Length};
use std::iter;
use std::ops::ControlFlow;

fn squared(a: &[f32], b: &[f32]) -> f64 {
    let differences = iter::zip(a, b).map(|(&a, &b)| f64::from(a) - f64::from(b));
    differences.map(|difference| difference * difference).sum()
}

/// A codebook that leaves lengths as they are, and an embedding that fits it.
fn codebook() -> impl Strategy<Value = (Codebook, Vec<f32>)> {
    (1usize..5, 1usize..20, 1usize..40, 0.0f32..=1.0, any::<u32>()).prop_flat_map(|(m, k, dsub, weight, model)| {
        let values = prop::collection::vec(-1.0f32..1.0, m * k * dsub);
        let embedding = prop::collection::vec(-1.0f32..1.0, m * dsub);
        (values, embedding).prop_map(move |(values, embedding)| {
            let centroids = Array3::from_shape_vec((m, k, dsub), values).unwrap();
            (Codebook::new(centroids, weight, model).unwrap().with_length(Length::Own), embedding)
        })
    })
}

/// Samples of shape `(n, d)` around a few centres, with n, d and the number of clusters.
fn samples() -> impl Strategy<Value = Array2<f32>> {
    (20usize..60, 1usize..4).prop_flat_map(|(n, half)| {
        let values = prop::collection::vec(-1.0f32..1.0, n * 2 * half);
        values.prop_map(move |mut values| {
            for (i, sample) in values.chunks_mut(2 * half).enumerate() {
                sample[0] += (i % 4) as f32 * 3.0;
            }
            Array2::from_shape_vec((n, 2 * half), values).unwrap()
        })
    })
}

fn options(subspaces: usize, prototypes: usize) -> CodebookOptions {
    CodebookOptions { subspaces, prototypes, ..CodebookOptions::default() }
}

/// The mean of the squared distances of the samples to their prototypes.
fn inertia(codebook: &Codebook, samples: ArrayView2<f32>) -> f64 {
    let distance = |sample: Vec<f32>| squared(&sample, &codebook.decode(&codebook.encode(&sample).unwrap()).unwrap());
    samples.rows().into_iter().map(|sample| distance(sample.to_vec())).sum::<f64>() / samples.nrows() as f64
}

/// One subspace whose prototypes are the given rows.
fn codebook_of(rows: ArrayView2<f32>) -> Codebook {
    Codebook::new(rows.to_owned().insert_axis(ndarray::Axis(0)), 0.2, 0).unwrap()
}

proptest! {
    #[test]
    fn encode_finds_what_brute_force_finds((codebook, embedding) in codebook()) {
        let code = codebook.encode(&embedding).unwrap();
        let dsub = codebook.dimension() / codebook.subspaces();
        for (subspace, &chosen) in code.iter().enumerate() {
            let subvector = &embedding[subspace * dsub..][..dsub];
            let distance = |prototype: usize| {
                squared(subvector, codebook.centroids().slice(s![subspace, prototype, ..]).as_slice().unwrap())
            };
            let least = (0..codebook.prototypes()).map(distance).fold(f64::INFINITY, f64::min);
            prop_assert!(distance(chosen.into()) <= least * (1.0 + 1e-5));
        }
    }

    #[test]
    fn prototypes_encode_to_themselves((codebook, _) in codebook(), seed in any::<u64>()) {
        let k = codebook.prototypes() as u64;
        let code: Vec<u16> = (0..codebook.subspaces()).map(|i| (seed.rotate_left(i as u32 * 7) % k) as u16).collect();
        let prototypes = codebook.decode(&code).unwrap();
        let again = codebook.encode(&prototypes).unwrap();
        // Random prototypes differ, but nothing forbids that they do not: then the first counts.
        prop_assert_eq!(codebook.decode(&again).unwrap(), prototypes);
        prop_assert!(iter::zip(&again, &code).all(|(again, code)| again <= code));
    }

    #[test]
    fn weight_1_leaves_the_embedding((codebook, embedding) in codebook()) {
        let codebook = Codebook::new(codebook.centroids().to_owned(), 1.0, 0).unwrap().with_length(Length::Own);
        prop_assert_eq!(codebook.fuse(&embedding).unwrap(), embedding);
    }

    #[test]
    fn weight_0_leaves_the_prototypes((codebook, embedding) in codebook()) {
        let codebook = Codebook::new(codebook.centroids().to_owned(), 0.0, 0).unwrap().with_length(Length::Own);
        let prototypes = codebook.decode(&codebook.encode(&embedding).unwrap()).unwrap();
        prop_assert_eq!(codebook.fuse(&embedding).unwrap(), prototypes);
    }

    /// ‖q − F‖² = w ‖q − x‖² + (1 − w) ‖q − p‖² − w (1 − w) ‖x − p‖²
    #[test]
    fn fused_distance_is_made_of_three((codebook, x) in codebook(), shift in -1.0f32..1.0) {
        let q: Vec<f32> = x.iter().rev().map(|value| value + shift).collect();
        let p = codebook.decode(&codebook.encode(&x).unwrap()).unwrap();
        let fused = codebook.fuse(&x).unwrap();
        let w = f64::from(codebook.weight());
        let expected = w * squared(&q, &x) + (1.0 - w) * squared(&q, &p) - w * (1.0 - w) * squared(&x, &p);
        prop_assert!((squared(&q, &fused) - expected).abs() <= 1e-5 * (1.0 + expected));
    }

    #[test]
    fn unit_length_keeps_the_direction((codebook, x) in codebook()) {
        let plain = codebook.fuse(&x).unwrap();
        let unit = codebook.clone().with_length(Length::Scaled).fuse(&x).unwrap();
        let zero = vec![0.0; plain.len()];
        let length = squared(&plain, &zero).sqrt();
        prop_assume!(length > 1e-3);
        prop_assert!((squared(&unit, &zero) - 1.0).abs() < 1e-5);
        prop_assert!(iter::zip(&plain, &unit).all(|(plain, unit)| (f64::from(*plain) / length - f64::from(*unit)).abs() < 1e-5));
        prop_assert_ne!(codebook.digest(), codebook.clone().with_length(Length::Scaled).digest());
    }

    #[test]
    fn json_round_trip_is_the_identity((codebook, _) in codebook(), length in 0usize..3, bank in 0u32..3) {
        let hubs = Hubs { bank, strength: bank as f32 / 4.0 };
        let codebook = codebook.with_length([Length::Own, Length::Scaled, Length::Completed][length]).with_hubs(hubs).unwrap();
        let back = Codebook::from_json(&codebook.to_json()).unwrap();
        prop_assert_eq!(&back, &codebook);
        prop_assert_eq!(back.digest(), codebook.digest());
    }

    /// Whatever floats there are, subnormals too, also as `jsonb` writes them: no exponents.
    #[test]
    fn json_keeps_every_bit(bits in prop::collection::vec(any::<u32>(), 1..50)) {
        let values: Vec<f32> = bits.iter().map(|&bits| f32::from_bits(bits)).collect();
        let values: Vec<f32> = values.into_iter().filter(|value| value.abs() <= 65504.0).collect();
        prop_assume!(!values.is_empty());
        let centroids = Array3::from_shape_vec((1, values.len(), 1), values.clone()).unwrap();
        let codebook = Codebook::new(centroids, 0.2, 7).unwrap().with_length(Length::Scaled);
        let decimals: Vec<String> = values.iter().map(|value| format!("{value}")).collect();
        let jsonb = format!(
            r#"{{"model": 7, "format": 1, "unit_length": true, "weight": 0.2, "centroids": [{}], "dimension": 1, "subspaces": 1, "prototypes": {}}}"#,
            decimals.join(", "),
            values.len(),
        );
        for text in [codebook.to_json(), jsonb] {
            prop_assert_eq!(Codebook::from_json(&text).unwrap().digest(), codebook.digest());
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in "\\PC*") {
        prop_assert!(Codebook::from_json(&text).is_err());
    }

    #[test]
    fn training_is_deterministic(samples in samples(), seed in any::<u64>()) {
        let options = CodebookOptions { seed, runs: 2, ..options(2, 4) };
        let once = Codebook::train(samples.view(), 9, &options).unwrap();
        // Neither threads nor the memory layout of the samples make a difference.
        let transposed = samples.t().as_standard_layout().into_owned();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        let again = pool.install(|| Codebook::train(transposed.t(), 9, &options)).unwrap();
        prop_assert_eq!(once.digest(), again.digest());
    }

    #[test]
    fn more_iterations_never_make_it_worse(samples in samples(), seed in any::<u64>()) {
        let trained = |max_iterations| {
            let options = CodebookOptions { seed, max_iterations, tolerance: 1e-6, ..options(1, 4) };
            inertia(&Codebook::train(samples.view(), 0, &options).unwrap(), samples.view())
        };
        let after = [1, 2, 5, 50].map(trained);
        prop_assert!(after.is_sorted_by(|before, after| *after <= before * (1.0 + 1e-5)), "{after:?}");
    }

    #[test]
    fn more_runs_never_make_it_much_worse(samples in samples(), seed in any::<u64>()) {
        let trained = |runs| {
            let options = CodebookOptions { seed, runs, tolerance: 1e-6, ..options(1, 4) };
            inertia(&Codebook::train(samples.view(), 0, &options).unwrap(), samples.view())
        };
        prop_assert!(trained(5) <= trained(1) * 1.01);
    }
}

/// Eight blobs of 50 samples, 16 dimensions, far from each other.
fn blobs() -> Array2<f32> {
    Array2::from_shape_fn((400, 16), |(i, j)| {
        let noise = ((i * 16 + j) as f32 * 12.9898).sin() * 43_758.547;
        let centre = if i % 8 == j % 8 { 10.0 } else { 0.0 };
        centre + noise.fract() * 0.5
    })
}

#[test]
fn training_finds_clusters_that_are_there() {
    let samples = blobs();
    let codebook = Codebook::train(samples.view(), 0, &options(1, 8)).unwrap();
    let mut codes: Vec<_> = (0..8).map(|i| codebook.encode(&samples.row(i).to_vec()).unwrap()[0]).collect();
    for i in 0..400 {
        assert_eq!(codebook.encode(&samples.row(i).to_vec()).unwrap()[0], codes[i % 8]);
    }
    codes.sort_unstable();
    assert_eq!(codes, [0, 1, 2, 3, 4, 5, 6, 7]);
    assert!(
        inertia(&codebook, samples.view()) < 0.75 * inertia(&codebook_of(samples.slice(s![..8, ..])), samples.view())
    );
}

#[test]
fn seed_matters() {
    let samples = blobs();
    let trained = |seed| Codebook::train(samples.view(), 0, &CodebookOptions { seed, ..options(2, 20) }).unwrap();
    assert_eq!(trained(1).digest(), trained(1).digest());
    assert_ne!(trained(1).digest(), trained(2).digest());
}

#[test]
fn samples_as_many_as_prototypes_become_the_prototypes() {
    let samples = array![[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]];
    let codebook = Codebook::train(samples.view(), 0, &options(1, 3)).unwrap();
    assert!(inertia(&codebook, samples.view()) < 1e-7);
}

#[test]
fn identical_samples_are_told_from_prototypes_too_many() {
    let samples = Array2::from_elem((100, 4), 0.5);
    let error = Codebook::train(samples.view(), 0, &options(2, 8)).unwrap_err();
    assert!(matches!(error, CodebookError::TooFewDistinct { subspace: 0, distinct: 1, prototypes: 8 }), "{error}");
    let codebook = Codebook::train(samples.view(), 0, &options(2, 1)).unwrap();
    // Its length is 1 already.
    assert_eq!(codebook.fuse(&[0.5; 4]).unwrap(), [0.5; 4]);

    let mut samples = samples;
    samples[[7, 3]] = 0.25;
    let error = Codebook::train(samples.view(), 0, &options(1, 3)).unwrap_err();
    assert!(matches!(error, CodebookError::TooFewDistinct { subspace: 0, distinct: 2, prototypes: 3 }), "{error}");
    assert!(Codebook::train(samples.view(), 0, &options(1, 2)).is_ok());
}

#[test]
fn training_refuses_what_it_cannot_use() {
    let samples = blobs();
    let refused = |options: CodebookOptions| Codebook::train(samples.view(), 0, &options).unwrap_err();
    assert!(matches!(refused(options(2, 401)), CodebookError::TooFewSamples { samples: 400, prototypes: 401 }));
    assert!(matches!(refused(options(3, 8)), CodebookError::Subspaces { dimension: 16, subspaces: 3 }));
    assert!(matches!(refused(options(0, 8)), CodebookError::Subspaces { .. }));
    assert!(matches!(refused(options(32, 8)), CodebookError::Subspaces { .. }));
    assert!(matches!(refused(options(2, 0)), CodebookError::Prototypes { prototypes: 0 }));
    assert!(matches!(refused(options(2, 65537)), CodebookError::Prototypes { .. }));
    for weight in [-0.1, 1.1, f32::NAN] {
        assert!(matches!(refused(CodebookOptions { weight, ..options(2, 8) }), CodebookError::Weight { .. }));
    }
    for tolerance in [0.0, -1.0, f32::NAN] {
        let error = refused(CodebookOptions { tolerance, ..options(2, 8) });
        assert!(matches!(error, CodebookError::NotPositive { option: "tolerance" }));
    }
    let error = refused(CodebookOptions { max_iterations: 0, ..options(2, 8) });
    assert!(matches!(error, CodebookError::NotPositive { option: "max_iterations" }));
    let error = refused(CodebookOptions { runs: 0, ..options(2, 8) });
    assert!(matches!(error, CodebookError::NotPositive { option: "runs" }));
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30] {
        let mut samples = blobs();
        samples[[2, 3]] = value;
        let error = Codebook::train(samples.view(), 0, &options(2, 8)).unwrap_err();
        assert!(matches!(error, CodebookError::Value { position: 35, .. }), "{error}");
    }
    let nothing = Array2::zeros((0, 0));
    assert!(matches!(Codebook::train(nothing.view(), 0, &options(1, 1)), Err(CodebookError::Subspaces { .. })));
}

/// PostgreSQL's backends must stay alone in their process.
#[test]
fn training_stays_on_its_thread() {
    let mut alone = || {
        assert_eq!((rayon::current_thread_index(), rayon::current_num_threads()), (Some(0), 1));
        ControlFlow::Continue(())
    };
    Codebook::train_with(blobs().view(), 0, &options(2, 8), &mut alone).unwrap();
}

#[test]
fn training_stops_when_asked() {
    let samples = blobs();
    let mut calls = 0;
    let mut count = || {
        calls += 1;
        ControlFlow::Continue(())
    };
    Codebook::train_with(samples.view(), 0, &options(2, 8), &mut count).unwrap();
    assert!(calls > 2 * 8, "{calls}");
    for stop in 1..calls {
        let mut left = stop;
        let mut check = || {
            left -= 1;
            if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let stopped = Codebook::train_with(samples.view(), 0, &options(2, 8), &mut check);
        assert!(matches!(stopped, Err(CodebookError::Interrupted)));
    }
}

#[test]
fn of_equally_near_prototypes_the_first_is_taken() {
    let codebook = codebook_of(array![[3.0], [1.0], [-1.0], [1.0]].view());
    assert_eq!(codebook.encode(&[0.0]).unwrap(), [1]);
    assert_eq!(codebook.encode(&[1.5]).unwrap(), [1]);
}

#[test]
fn codebook_has_the_shape_that_it_was_made_with() {
    let centroids = Array3::from_shape_fn((2, 3, 4), |(i, j, l)| (100 * i + 10 * j + l) as f32);
    let codebook = Codebook::new(centroids.clone(), 0.25, 77).unwrap();
    assert_eq!((codebook.subspaces(), codebook.prototypes(), codebook.dimension()), (2, 3, 8));
    assert_eq!((codebook.weight(), codebook.model()), (0.25, 77));
    assert_eq!(codebook.centroids(), centroids);
    assert_eq!(codebook.decode(&[2, 0]).unwrap(), [20.0, 21.0, 22.0, 23.0, 100.0, 101.0, 102.0, 103.0]);
    // Another memory layout of the same array is the same codebook.
    let other = centroids.clone().reversed_axes().as_standard_layout().into_owned().reversed_axes();
    assert_eq!(Codebook::new(other, 0.25, 77).unwrap().digest(), codebook.digest());
}

#[test]
fn codebook_refuses_what_does_not_fit() {
    let codebook = codebook_of(array![[3.0, 0.0], [1.0, 1.0]].view());
    for error in [codebook.encode(&[1.0]).unwrap_err(), codebook.fuse(&[1.0]).unwrap_err()] {
        assert!(matches!(error, CodebookError::Dimension { actual: 1, expected: 2 }));
    }
    let error = codebook.fuse(&[0.0, f32::NAN]).unwrap_err();
    assert!(matches!(error, CodebookError::Value { position: 1, .. }));
    let error = codebook.decode(&[0, 1]).unwrap_err();
    assert!(matches!(error, CodebookError::CodeLength { actual: 2, expected: 1 }));
    let error = codebook.decode(&[2]).unwrap_err();
    assert!(matches!(error, CodebookError::Code { subspace: 0, code: 2, prototypes: 2 }));
}

#[test]
fn codebook_refuses_what_is_too_large() {
    let error = Codebook::new(Array3::zeros((1, 1, 16_001)), 0.2, 0).unwrap_err();
    assert!(matches!(error, CodebookError::Subspaces { dimension: 16_001, .. }));
    let error = Codebook::new(Array3::zeros((1, 65_537, 1)), 0.2, 0).unwrap_err();
    assert!(matches!(error, CodebookError::Prototypes { .. }));
    assert!(Codebook::new(Array3::zeros((1, 65_536, 1)), 0.2, 0).is_ok());
    let error = Codebook::train(Array2::zeros((1, 1024)).view(), 0, &options(1, 65_536)).unwrap_err();
    assert!(matches!(error, CodebookError::TooLarge { .. }));
}

/// The last of the most prototypes has the highest code.
#[test]
fn codes_reach_the_last_prototype() {
    let codebook = Codebook::new(Array3::from_shape_fn((1, 65_536, 1), |(_, j, _)| j as f32 * 0.5), 0.2, 0).unwrap();
    assert_eq!(codebook.encode(&[32_767.5]).unwrap(), [65_535]);
}

#[test]
fn json_that_is_no_codebook_is_refused() {
    let good = r#"{"format":1,"model":0,"subspaces":1,"prototypes":2,"dimension":2,"weight":0.2,"unit_length":true,"centroids":[1,2,3,4]}"#;
    assert!(Codebook::from_json(good).is_ok());
    let refused = |from: &str, to: &str| {
        let text = good.replace(from, to);
        assert_ne!(text, good);
        Codebook::from_json(&text).unwrap_err()
    };
    assert!(matches!(refused("4]}", "4]"), CodebookError::Json(_)));
    assert!(matches!(refused("4]}", "null]}"), CodebookError::Json(_)));
    assert!(matches!(refused("4]}", "1e999]}"), CodebookError::Json(_)));
    assert!(matches!(refused("4]}", "1e30]}"), CodebookError::Value { position: 3, .. }));
    assert!(matches!(refused("\"model\":0", "\"model\":-1"), CodebookError::Json(_)));
    assert!(matches!(refused("\"model\":0,", ""), CodebookError::Json(_)));
    assert!(matches!(refused("\"unit_length\":true,", ""), CodebookError::Json(_)));
    assert!(matches!(refused("\"model\":0", "\"model\":0,\"colour\":1"), CodebookError::Json(_)));
    assert!(matches!(refused("\"format\":1", "\"format\":2"), CodebookError::Format { format: 2, expected: 1 }));
    let error = refused("\"format\":1", "\"format\":2,\"colour\":1");
    assert!(matches!(error, CodebookError::Format { format: 2, expected: 1 }));
    assert!(matches!(refused("4]}", "4,5]}"), CodebookError::ValueCount { actual: 5, expected: 4 }));
    assert!(matches!(refused("0.2", "2"), CodebookError::Weight { .. }));
    assert!(matches!(refused("\"subspaces\":1", "\"subspaces\":0"), CodebookError::Subspaces { .. }));
    assert!(matches!(refused("\"subspaces\":1", "\"subspaces\":3"), CodebookError::Subspaces { .. }));
    assert!(matches!(
        refused("\"dimension\":2", "\"dimension\":18446744073709551615"),
        CodebookError::Subspaces { .. }
    ));
    let error = refused("\"prototypes\":2", "\"prototypes\":18446744073709551615");
    assert!(matches!(error, CodebookError::Prototypes { .. }));
}

/// A digest is what other databases hold: it must not change with the program.
#[test]
fn digest_is_as_documented() {
    let codebook = Codebook::new(array![[[1.0, -0.0]], [[0.5, -2.0]]], 0.25, 3).unwrap();
    assert_eq!(codebook.tag(), u32::from_be_bytes(codebook.digest()[..4].try_into().unwrap()));
    let hex = |codebook: Codebook| -> String { codebook.digest().iter().map(|byte| format!("{byte:02x}")).collect() };
    assert_eq!(hex(codebook.clone().with_length(Length::Scaled)), DIGEST_OF_0_1_0);
    assert_eq!(hex(codebook.with_hubs(Hubs { bank: 7, strength: 0.5 }).unwrap()), DIGEST);
}

// python3: sha256(b"pg_sketch codebook 1" + struct.pack("<IIIIIfffff", 3, 2, 1, 4, 1, 0.25, 1, 0, 0.5, -2)).hexdigest()
const DIGEST_OF_0_1_0: &str = "0696b74dc2225b964bdbc2d2b9e412608277c5f27f41fc62f27214f881d3c3fd";
// python3: sha256(b"pg_sketch codebook 1" + struct.pack("<IIIIIfffffIf", 3, 2, 1, 4, 2, 0.25, 1, 0, 0.5, -2, 7, 0.5)).hexdigest()
const DIGEST: &str = "3ad2a10c56cdab0d0d22ee3194695bde6916f76a5094e67e15bf8f871641a81e";

#[test]
fn digest_sees_all_that_matters() {
    let of = |value, weight, model| Codebook::new(array![[[1.0, value]]], weight, model).unwrap().digest();
    let digests = [of(2.0, 0.5, 1), of(2.5, 0.5, 1), of(2.0, 0.25, 1), of(2.0, 0.5, 2)];
    for (i, digest) in digests.iter().enumerate() {
        assert!(!digests[..i].contains(digest));
    }
    let shape = |m, k, dsub| Codebook::new(Array3::ones((m, k, dsub)), 0.5, 1).unwrap().digest();
    assert_ne!(shape(1, 2, 2), shape(2, 2, 1));
    assert_ne!(shape(1, 2, 2), shape(1, 1, 4));
}
