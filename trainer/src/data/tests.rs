use std::collections::HashSet;

use super::*;

const CLASSES: &str = "class\tsplit\tquickdraw\tcaltech101\n\
    cat\ttrain\tcat\twild_cat\n\
    car\tval\tcar,police car\tcar_side\n\
    hot_dog\tval\t\t\n";

/// A folder of empty files that goes when the test ends.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str, classes: &str, files: &[&str]) -> Self {
        let root = std::env::temp_dir().join(format!("sketch-trainer-{}-{name}", std::process::id()));
        for file in files {
            let path = root.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "{\"drawing\":1}\n\n{\"drawing\":2}\n").unwrap();
        }
        fs::create_dir_all(&root).unwrap();
        fs::write(root.join("classes.tsv"), classes).unwrap();
        Self(root)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn all(name: &str) -> Folder {
    Folder::new(
        name,
        CLASSES,
        &[
            "sketchy-mini/sketch/cat/a.png",
            "sketchy-mini/sketch/car/b.png",
            "sketchy-mini/photo/car/b.jpg",
            "sketchy-mini/photo/cat/a.jpg",
            "quickdraw/cat.ndjson",
            "quickdraw/police car.ndjson",
            "quickdraw/car.ndjson",
            "quickdraw/hot dog.ndjson",
            "quickdraw/zebra.ndjson",
            "caltech101/car_side/1.jpg",
            "caltech101/wild_cat/2.jpg",
            "caltech101/hot_dog/3.jpg",
            "caltech101/zebra/4.jpg",
            "unlabelled/u.jpg",
        ],
    )
}

fn classes(items: &[&Item]) -> Vec<String> {
    items.iter().map(|item| item.class.clone()).collect()
}

/// The rule that everything rests on: no image of an unseen class, under whatever name, from whatever folder.
#[test]
fn no_validation_class_is_in_training() {
    let folder = all("training");
    let data = DataSet::open(&folder.0).unwrap();
    let trained: Vec<&Item> =
        data.collections().iter().flat_map(|collection| data.training(&collection.name)).collect();
    let labels: HashSet<String> = trained.iter().map(|item| item.label()).collect();
    for name in ["car/", "car.ndjson", "police car", "car_side", "hot dog", "hot_dog"] {
        assert!(labels.iter().all(|label| !label.contains(name)), "{name} is trained on");
    }
    assert!(trained.iter().all(|item| !["car", "hot_dog"].contains(&&*item.class)));
    assert_eq!(classes(&data.training(CALTECH)), ["cat", "zebra"]);
    assert_eq!(classes(&data.training(QUICKDRAW)), ["cat", "cat", "zebra", "zebra"]);
}

#[test]
fn validation_has_the_classes_by_their_sketchy_names() {
    let folder = all("validation");
    let data = DataSet::open(&folder.0).unwrap();
    assert_eq!(classes(&data.validation(SKETCHY_PHOTOS)), ["car"]);
    assert_eq!(classes(&data.validation(CALTECH)), ["car", "hot_dog"]);
    let drawings = data.validation(QUICKDRAW);
    assert_eq!(classes(&drawings), ["car", "car", "hot_dog", "hot_dog", "car", "car"]);
    assert_eq!(drawings[1].bytes().unwrap(), b"{\"drawing\":2}");
    assert!(drawings[1].label().ends_with("quickdraw/car.ndjson:3"));
}

const DESCRIPTION: &str = r#"
unseen = ["toy car"]
[[collection]]
name = "drawn by users"
title = "users"
domain = "sketch"
layout = "folders"
path = "drawn"
[[collection]]
name = "catalogue"
domain = "photo"
layout = "list"
path = "catalogue.csv"
[[collection]]
name = "others"
domain = "photo"
layout = "unlabelled"
path = "others"
"#;

#[test]
fn a_description_says_how_images_lie() {
    let folder = Folder::new("own", CLASSES, &["drawn/cup/a.png", "drawn/toy car/b.png", "others/c.jpg"]);
    fs::write(folder.0.join("data.toml"), DESCRIPTION).unwrap();
    fs::write(
        folder.0.join("catalogue.csv"),
        "class,path,price\ncup,x/1.jpg,3\n\"toy car\",\"x/2,3.jpg\",4\n,x/4.jpg,\n",
    )
    .unwrap();
    let data = DataSet::open(&folder.0).unwrap();
    assert_eq!(data.collection("drawn by users").unwrap().title, "users");
    assert_eq!(classes(&data.training("drawn by users")), ["cup"]);
    assert_eq!(classes(&data.validation("drawn by users")), ["toy_car"]);
    assert_eq!(classes(&data.training("catalogue")), ["cup", ""]);
    assert!(data.validation("catalogue")[0].label().ends_with("x/2,3.jpg"));
    assert_eq!(data.of_domain(Domain::Photo).count(), 2);
    assert_eq!(data.training("others").len(), 1);
    assert!(matches!(data.collection("nothing"), Err(DataError::Collection { .. })));
}

#[test]
fn malformed_descriptions_are_refused() {
    let folder = Folder::new("malformed", CLASSES, &["drawn/cup/a.png", "others/c.jpg"]);
    let open = |description: &str, list: &str| {
        fs::write(folder.0.join("data.toml"), description).unwrap();
        fs::write(folder.0.join("catalogue.csv"), list).unwrap();
        DataSet::open(&folder.0).unwrap_err()
    };
    let fault = open(&DESCRIPTION.replace("layout = \"list\"", "layout = \"heap\""), "path\nx.jpg\n");
    assert!(matches!(fault, DataError::Description { .. }), "{fault:?}");
    let fault = open(&DESCRIPTION.replace("name = \"others\"", "name = \"catalogue\""), "path\nx.jpg\n");
    assert!(matches!(fault, DataError::TwoCollections { .. }), "{fault:?}");
    let fault = open(DESCRIPTION, "path,class\nx.jpg,cup\n,cup\n");
    assert!(matches!(fault, DataError::Row { line: 3, .. }), "{fault:?}");
    let fault = open(DESCRIPTION, "path,class\nx.jpg\n");
    assert!(matches!(fault, DataError::List { .. }), "{fault:?}");
    let fault = open(&DESCRIPTION.replace("\"others\"\n\"", "\"elsewhere\"\n"), "file\nx.jpg\n");
    assert!(matches!(fault, DataError::Row { line: 2, .. }), "{fault:?}");
    let fault = open(&DESCRIPTION.replace("path = \"others\"", "path = \"elsewhere\""), "path\nx.jpg\n");
    assert!(matches!(&fault, DataError::Io { path, .. } if path.ends_with("elsewhere")), "{fault:?}");
}

/// A class without a split might be one that must stay unseen.
#[test]
fn class_without_a_split_is_refused() {
    let folder = Folder::new("unknown", CLASSES, &["sketchy-mini/photo/dog/a.jpg"]);
    assert!(matches!(DataSet::open(&folder.0), Err(DataError::UnknownClass { class, .. }) if class == "dog"));
}

#[test]
fn malformed_class_lists_name_the_line() {
    for (i, text) in [
        "class\tsplit\tquickdraw\tcaltech101\ncat\ttrain\tcat",
        "class\tsplit\tquickdraw\tcaltech101\ncat\ttest\tcat\t",
        "class\tsplit\tquickdraw\tcaltech101\ncat\ttrain\t\t\ncat\tval\t\t",
        "name\tsplit\ncat\ttrain",
    ]
    .iter()
    .enumerate()
    {
        let error = Classes::parse(text, Path::new("classes.tsv")).unwrap_err();
        assert!(matches!(error, DataError::Classes { line, .. } if line == [2, 2, 3, 1][i]));
    }
}

#[test]
fn folders_without_data_are_named() {
    assert!(
        matches!(DataSet::open(Path::new("/nowhere")), Err(DataError::Io { path, .. }) if path.starts_with("/nowhere"))
    );
    let folder = Folder::new("empty", CLASSES, &[]);
    assert!(matches!(DataSet::open(&folder.0), Err(DataError::Empty { .. })));
}
