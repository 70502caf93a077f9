//! `sketch-trainer inspect`

mod data;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use sketch_model::inference::onnx::messages::{ModelProto, ValueInfoProto, tensor_shape_proto::dimension, type_proto};

use sketch_trainer::engine::Tape;
use sketch_trainer::engine::layers::Layer;
use sketch_trainer::store;
use sketch_trainer::train::Cut;

#[derive(clap::Args)]
pub struct Arguments {
    /// Network: an .onnx file
    #[arg(required_unless_present = "data")]
    network: Option<PathBuf>,
    /// Mark the layers that train if training starts at this layer
    #[arg(long, value_name = "LAYER", requires = "network")]
    train_from: Option<String>,
    /// Count the images of a folder of data sets and report gaps
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// Decode every image and name those that cannot be used
    #[arg(long, requires = "data")]
    decode: bool,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if let Some(path) = &arguments.network {
        inspect_network(path, arguments.train_from.as_deref())?;
    }
    arguments.data.as_ref().map_or(Ok(()), |folder| data::inspect(folder, arguments.decode))
}

fn inspect_network(path: &Path, train_from: Option<&str>) -> anyhow::Result<()> {
    let model = store::read_graph(path)?;
    let tape = Tape::read(&model)?;
    let first = match train_from {
        Some(layer) => Some(Cut::before(&tape, layer)?.first),
        None => None,
    };
    print_head(&model, fs::metadata(path)?.len());
    print_layers(&tape.layers(), first);
    Ok(())
}

fn print_head(model: &ModelProto, bytes: u64) {
    let sets: Vec<String> = model.opset_import.iter().map(|set| set.version().to_string()).collect();
    println!("file       {:.1} MB, operator set {}", bytes as f64 / 1e6, sets.join(", "));
    for (what, list) in model.graph.iter().flat_map(|graph| [("input", &graph.input), ("output", &graph.output)]) {
        list.iter().for_each(|info| println!("{what:10} {} {}", info.name(), shape(info)));
    }
    for entry in &model.metadata_props {
        println!("{:10} {}", entry.key(), entry.value());
    }
}

/// Fixed sizes as numbers, dynamic ones by name.
fn shape(info: &ValueInfoProto) -> String {
    let Some(type_proto::Value::TensorType(tensor)) = info.r#type.as_ref().and_then(|kind| kind.value.as_ref()) else {
        return String::new();
    };
    let size = |value: &Option<dimension::Value>| match value {
        Some(dimension::Value::DimValue(size)) => size.to_string(),
        Some(dimension::Value::DimParam(name)) => name.clone(),
        None => "?".to_owned(),
    };
    let sizes: Vec<String> = tensor.shape.iter().flat_map(|shape| &shape.dim).map(|dim| size(&dim.value)).collect();
    format!("({})", sizes.join(", "))
}

fn print_layers(layers: &[Layer], first: Option<usize>) {
    let total: usize = layers.iter().map(Layer::parameters).sum();
    let trains = |layer: &Layer| first.is_some_and(|first| layer.node >= first);
    println!("\n{:>4} {:36} {:20} {:22} {:>10} {:>6}", "", "layer", "operator", "weights", "parameters", "share");
    for layer in layers {
        let shape = layer.weights.first().map(|(_, shape)| format!("{shape:?}")).unwrap_or_default();
        println!(
            "{:>4} {:36} {:20} {:22} {:>10} {:>5.1}%{}",
            layer.position,
            layer.name,
            layer.operator,
            shape,
            layer.parameters(),
            100.0 * layer.parameters() as f64 / total.max(1) as f64,
            if trains(layer) { "  trains" } else { "" }
        );
    }
    let mut operators: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for layer in layers {
        let entry = operators.entry(&layer.operator).or_default();
        *entry = (entry.0 + 1, entry.1 + layer.parameters());
    }
    println!();
    operators.iter().for_each(|(operator, (count, size))| println!("{operator:20} {count:>5} layers {size:>10}"));
    println!("{:20} {:>5} layers {total:>10}", "all", layers.len());
    if first.is_some() {
        let (count, size) = layers
            .iter()
            .filter(|layer| trains(layer))
            .fold((0, 0), |(count, size), layer| (count + 1, size + layer.parameters()));
        println!("{:20} {count:>5} layers {size:>10}", "after the cut");
    }
}
