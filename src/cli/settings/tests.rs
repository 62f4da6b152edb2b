use std::path::Path;

use super::*;

fn layers(variables: &[(&str, &str)], file: &str) -> Layers {
    let file = SettingsFile::parse(Path::new("/etc/haulout.toml"), file).unwrap();
    Layers::new(Environment::of_variables(variables), Some(file))
}

#[test]
fn a_flag_beats_the_environment_beats_the_file_beats_the_default() {
    let file = "[backup]\nuploads = 3\n";
    let variables = [("HAULOUT_UPLOADS", "5")];
    let uploads = |variables: &[_], file, flag: Option<u32>| {
        let layers = layers(variables, file);
        let value = layers.pick_or(&keys::UPLOADS, flag.map(UpTo::clamped), UpTo::clamped(4)).unwrap();
        (value.get(), layers.picked()[0].origin.to_string())
    };
    assert_eq!(uploads(&variables, file, Some(7)), (7, "--uploads".to_owned()));
    assert_eq!(uploads(&variables, file, None), (5, "environment variable HAULOUT_UPLOADS".to_owned()));
    assert_eq!(uploads(&[("HAULOUT_UPLOADS", "")], file, None), (3, "/etc/haulout.toml:2".to_owned()));
    assert_eq!(uploads(&[], "", None), (4, "default".to_owned()));
}

#[test]
fn a_wrong_variable_is_named() {
    let error = layers(&[("HAULOUT_PORT", "mysql")], "").pick(&keys::PORT, None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "environment variable HAULOUT_PORT: [mariadb] port: expected a number from 1 to 65535, found \"mysql\""
    );
}

#[test]
fn the_examples_in_the_documentation_are_settings_files() {
    let text = include_str!("../SETTINGS.md");
    let examples: Vec<&str> = text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    let example = examples.concat();
    assert_eq!(examples.len(), 2);
    let layers = layers(&[], &example);
    assert_eq!(layers.pick(&keys::SPOOL_SIZE, None).unwrap().unwrap().0, 8 << 30);
    assert_eq!(layers.pick(&keys::URL, None).unwrap().as_deref(), Some("s3://backups/db1"));
}

#[test]
fn the_standard_file_may_be_absent_and_a_named_one_not() {
    let mut environment = Environment::default();
    environment.config_file = "/nowhere/haulout.toml".into();
    assert!(Layers::open(environment.clone(), None).unwrap().file.is_none());
    assert!(Layers::open(environment, Some(Path::new("/nowhere/haulout.toml"))).is_err());
}
