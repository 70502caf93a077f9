//! Ablation: compares trainings with and without each part, over several seeds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Config, TrainError};

/// Trainings to compare, as TOML. Unknown keys are refused.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ablation {
    /// Seeds; every training runs once with each.
    pub seeds: Vec<u64>,
    /// Settings of all trainings.
    #[serde(default)]
    pub set: Vec<String>,
    #[serde(rename = "row")]
    pub rows: Vec<Row>,
}

/// One of the trainings.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    pub name: String,
    pub preset: String,
    /// Settings of this training, applied after those of all.
    #[serde(default)]
    pub set: Vec<String>,
}

impl Ablation {
    /// Parses the text of a file.
    ///
    /// # Errors
    /// [`TrainError::Config`] if it is malformed.
    pub fn parse(text: &str) -> Result<Self, TrainError> {
        Ok(toml::from_str(text)?)
    }

    /// The configuration of a row with a seed.
    ///
    /// # Errors
    /// As [`Config::preset`] and [`Config::parse`].
    pub fn config(&self, row: &Row, seed: u64) -> Result<Config, TrainError> {
        let seed = format!("seed={seed}");
        let settings: Vec<String> = self.set.iter().chain(&row.set).chain([&seed]).cloned().collect();
        Config::parse(Config::preset(&row.preset)?, &settings)
    }
}

/// The result of training one row with one seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    pub row: String,
    pub seed: u64,
    /// Digest of configuration, data and network.
    pub training: String,
    /// mAP without and with a codebook, by name of queries and gallery.
    pub map: BTreeMap<String, [f64; 2]>,
}

/// A Markdown table with a line per row and two columns per set of queries: mean ± standard deviation over the seeds.
pub fn table(rows: &[Row], trials: &[Trial]) -> String {
    let names: Vec<&String> = trials.first().map(|trial| trial.map.keys().collect()).unwrap_or_default();
    let mut lines = vec![String::from("| | seeds |"), String::from("| --- | --- |")];
    for name in &names {
        lines[0] += &format!(" {name} | fused |");
        lines[1] += " --- | --- |";
    }
    for row in rows {
        let of_row: Vec<&Trial> = trials.iter().filter(|trial| trial.row == row.name).collect();
        if of_row.is_empty() {
            continue;
        }
        let mut line = format!("| {} | {} |", row.name, of_row.len());
        for name in &names {
            for how in [0, 1] {
                let values: Vec<f64> = of_row.iter().filter_map(|trial| trial.map.get(*name)).map(|m| m[how]).collect();
                line += &format!(" {} |", spread(&values));
            }
        }
        lines.push(line);
    }
    lines.join("\n")
}

/// Mean ± standard deviation of a sample.
fn spread(values: &[f64]) -> String {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count.max(1.0);
    if values.len() < 2 {
        return format!("{mean:.1}");
    }
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0);
    format!("{mean:.1} ± {:.1}", variance.sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "seeds = [1, 2]\nset = [\"schedule.steps=7\"]\n[[row]]\nname = \"CE\"\npreset = \"seed\"\n\
                        set = [\"loss.align=0.0\"]\n[[row]]\nname = \"all\"\npreset = \"seed\"";

    #[test]
    fn rows_are_presets_with_settings() {
        let ablation = Ablation::parse(TEXT).unwrap();
        let config = ablation.config(&ablation.rows[0], 2).unwrap();
        assert_eq!((config.seed, config.schedule.steps, config.loss.align), (2, 7, 0.0));
        assert!(ablation.config(&ablation.rows[1], 1).unwrap().loss.align > 0.0);
        assert!(matches!(Ablation::parse("seeds = []\nrows = []"), Err(TrainError::Config(_))));
    }

    #[test]
    fn files_that_come_along_are_trainings() {
        for text in [include_str!("../../presets/ablation.toml"), include_str!("../../presets/ships.toml")] {
            let ablation = Ablation::parse(text).unwrap();
            let configs: Vec<Config> = ablation.rows.iter().map(|row| ablation.config(row, 0).unwrap()).collect();
            assert!(ablation.seeds.len() >= 3 && !configs.is_empty());
            for (i, config) in configs.iter().enumerate() {
                assert!(!configs[..i].contains(config), "{}: there is such a row", ablation.rows[i].name);
            }
        }
    }

    #[test]
    fn tables_have_mean_and_deviation() {
        let ablation = Ablation::parse(TEXT).unwrap();
        let trial = |row: &str, seed, map: [f64; 2]| Trial {
            row: row.to_owned(),
            seed,
            training: String::new(),
            map: BTreeMap::from([("val".to_owned(), map)]),
        };
        let trials = [trial("CE", 1, [10.0, 20.0]), trial("CE", 2, [12.0, 20.0]), trial("all", 1, [30.0, 40.0])];
        let expected = "| | seeds | val | fused |\n| --- | --- | --- | --- |\n\
                        | CE | 2 | 11.0 ± 1.4 | 20.0 ± 0.0 |\n| all | 1 | 30.0 | 40.0 |";
        assert_eq!(table(&ablation.rows, &trials), expected);
    }
}
