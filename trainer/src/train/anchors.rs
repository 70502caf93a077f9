//! Anchors: the ImageNet classes that mean the same as a class of drawings, used to teach classes without photos.

use std::collections::HashMap;

use super::TrainError;

const ANCHORS: &str = include_str!("../../presets/anchors.tsv");

/// Indices of ImageNet-1k classes by the class of drawings that means the same.
pub type Anchors = HashMap<String, Vec<usize>>;

/// The anchors that come with the trainer.
///
/// # Errors
/// [`TrainError::Anchors`] if an index is not below the teacher's number of `classes`.
pub fn built_in(classes: usize) -> Result<Anchors, TrainError> {
    parse(ANCHORS, classes)
}

/// Parses tab-separated lines of a class, comma-separated indices, and a remark; `#` starts a comment line.
///
/// # Errors
/// [`TrainError::Anchors`] with the number of the first malformed line.
pub fn parse(text: &str, classes: usize) -> Result<Anchors, TrainError> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|(i, line)| {
            let malformed = || TrainError::Anchors { line: i + 1, most: classes.saturating_sub(1) };
            let mut fields = line.split('\t');
            let (Some(class), Some(numbers)) = (fields.next(), fields.next()) else { return Err(malformed()) };
            let number = |text: &str| text.parse().ok().filter(|&number| number < classes);
            let numbers = numbers.split(',').map(number).collect::<Option<Vec<usize>>>().ok_or_else(malformed)?;
            Ok((class.to_owned(), numbers))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anchors_are_read() {
        let anchors = built_in(1000).unwrap();
        assert_eq!(anchors["teapot"], [849]);
        assert_eq!(anchors["airplane"], [404, 895]);
        assert!(matches!(built_in(500), Err(TrainError::Anchors { most: 499, .. })));
        assert!(matches!(parse("# remark\ncat 281", 1000), Err(TrainError::Anchors { line: 2, .. })));
        assert!(matches!(parse("cat\t281;282", 1000), Err(TrainError::Anchors { line: 1, .. })));
    }
}
