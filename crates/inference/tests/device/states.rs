//! Hidden states out of the pass that scores labels, on a device.

use super::{
    DeviceForm, DeviceLabelRequest, HiddenRequest, InferenceError, LabelRequest, Normalization,
    Pooling, among_all, load, options, processor, reference, text, tiny, tokens,
};
use inwarden_inference::DeviceOptions;

#[test]
fn hidden_states_are_those_of_the_processor_s_own_pass() {
    let (device, processor) = (load(&options(DeviceForm::F32)), processor());
    let n_layers = processor.config().num_hidden_layers;
    let prompt = tokens(&reference().prompt);
    let labels = [tokens(&[3, 4]), tokens(&[7])];
    let start = processor.prefix(&prompt[..20]).unwrap();
    let prepared = processor.prepare_labels(&labels, Normalization::WholeVocabulary);
    let prepared = prepared.unwrap();
    let device_start = device.prefix(&prompt[..20]).unwrap();
    let device_labels = among_all(&device, &labels);
    for (pooling, n_ranges) in [
        (Pooling::Last, 1),
        (Pooling::Mean(3..17), 1),
        (Pooling::Means(vec![0..1, 2..20, 19..20]), 3),
    ] {
        let hidden = HiddenRequest {
            layers: vec![n_layers, 0, 1],
            pooling,
        };
        let request = LabelRequest {
            prefix: &start,
            suffix: &prompt[20..],
            labels: &prepared,
            hidden: Some(&hidden),
        };
        let expected = processor.score_labels_batch(&[request]).unwrap().remove(0);
        let request = DeviceLabelRequest {
            prefix: &device_start,
            suffix: &prompt[20..],
            labels: &device_labels,
            hidden: Some(&hidden),
        };
        let actual = device.score_labels_batch(&[request]).unwrap().remove(0);
        let n_values = 3 * n_ranges * processor.config().hidden_size;
        assert_eq!(
            (actual.hidden.len(), expected.hidden.len()),
            (n_values, n_values)
        );
        for (actual, expected) in actual.hidden.iter().zip(&expected.hidden) {
            assert!((actual - expected).abs() < 2e-3, "{actual} {expected}");
        }
        let outside = [&actual, &expected].map(|scores| scores.outside.unwrap());
        assert!((outside[0] - outside[1]).abs() < 1e-3);
    }
}

#[test]
fn states_of_a_text_longer_than_a_pass_are_those_that_the_pass_holds() {
    let model = tiny(&DeviceOptions {
        kv_bytes: 1 << 22,
        ..options(DeviceForm::F32)
    });
    let (long, labels) = (text(3, 700), among_all(&model, &[tokens(&[5])]));
    let empty = model.prefix(&[]).unwrap();
    let ask = |pooling| {
        let hidden = HiddenRequest {
            layers: vec![1, 2],
            pooling,
        };
        let request = DeviceLabelRequest {
            prefix: &empty,
            suffix: &long,
            labels: &labels,
            hidden: Some(&hidden),
        };
        model.score_labels_batch(&[request])
    };
    let last = ask(Pooling::Last).unwrap().remove(0).hidden;
    let as_range = ask(Pooling::Mean(699..700)).unwrap().remove(0).hidden;
    assert_eq!(last.len(), 2 * 256);
    assert_eq!(last, as_range);
    for refused in [Pooling::Mean(100..300), Pooling::Mean(690..701)] {
        assert!(matches!(
            ask(refused),
            Err(InferenceError::InvalidOption {
                name: "pooling",
                ..
            })
        ));
    }
}
