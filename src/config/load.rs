//! Finding and reading the configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::env::{self, Override};
use super::error::{ConfigErrors, Origin, did_you_mean};
use super::places::Places;
use super::shape::Shape;
use super::tree::{self, Node};
use super::{Config, ModelFile, Pipeline, Server, check, validate};

/// Where the configuration is looked for when no path is given, in this order.
pub const DEFAULT_PATHS: [&str; 2] = ["config/boathouse.toml", "/etc/boathouse/boathouse.toml"];

/// A value in force and where it comes from.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// `kafka.brokers`, or `pipeline.user_events.time.window`.
    pub path: String,
    /// As JSON; secrets are `***`.
    pub value: Value,
    pub origin: Origin,
}

/// A configuration and the origin of each of its values.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub config: Config,
    /// The file that was read.
    pub path: PathBuf,
    pub settings: Vec<Setting>,
}

impl Config {
    /// Reads the configuration: the file (by default the first of [`DEFAULT_PATHS`] that exists), its pipelines, and
    /// the overrides in the environment. All mistakes are reported at once.
    pub fn load(path: Option<&Path>) -> Result<Config, ConfigErrors> {
        Loaded::load(path, process_env()).map(|loaded| loaded.config)
    }
}

impl Loaded {
    /// As [`Config::load`], with the environment as given, and with the origin of each value.
    pub fn load(path: Option<&Path>, env: impl IntoIterator<Item = (String, String)>) -> Result<Self, ConfigErrors> {
        let mut errors = ConfigErrors::default();
        let path = match path {
            Some(path) => path.to_path_buf(),
            None => find(&mut errors).ok_or_else(|| errors.clone())?,
        };
        let overrides = env::overrides(env);
        let (mut config, server_places, pipeline_places) = read(&path, &overrides, &mut errors);
        validate::server(&config.server, &server_places, &mut errors);
        for (pipeline, places) in config.pipelines.iter().zip(&pipeline_places) {
            validate::pipeline(pipeline, places, &mut errors);
        }
        validate::across(&config.pipelines, &pipeline_places, &mut errors);
        if !errors.0.is_empty() {
            errors.0.sort_by_key(|e| match &e.origin {
                Origin::Default => (0, String::new(), 0),
                Origin::File { path, line } => (1, path.display().to_string(), line.unwrap_or(0)),
                Origin::Env(name) => (2, name.clone(), 0),
            });
            return Err(errors);
        }
        let mut settings = Vec::new();
        collect(&config.server, "", &server_places, &mut settings);
        for (pipeline, places) in config.pipelines.iter().zip(&pipeline_places) {
            collect(&**pipeline, &format!("pipeline.{}", pipeline.name), places, &mut settings);
        }
        // From here on the folder is where it is, wherever the process goes.
        config.server.pipelines.dir = pipelines_dir(&path, &config.server);
        Ok(Self { config, path, settings })
    }
}

/// The process's environment; variables that are no Unicode cannot be ours.
pub fn process_env() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
}

/// The user's folder for what programs remember between runs, such as a shell's history: `$XDG_STATE_HOME/boathouse`,
/// by default `~/.local/state/boathouse`.
pub fn state_dir() -> Option<PathBuf> {
    let variables: BTreeMap<String, String> = process_env().collect();
    let folder = |name: &str| variables.get(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let state = folder("XDG_STATE_HOME").or_else(|| Some(folder("HOME")?.join(".local/state")))?;
    Some(state.join("boathouse"))
}

fn find(errors: &mut ConfigErrors) -> Option<PathBuf> {
    let found = DEFAULT_PATHS.iter().map(PathBuf::from).find(|p| p.exists());
    if found.is_none() {
        let message = format!("no configuration: neither {} nor {} exists", DEFAULT_PATHS[0], DEFAULT_PATHS[1]);
        errors.add(
            Origin::Default,
            message,
            "name one with --config FILE, or with BOATHOUSE_CONFIG in the environment",
        );
    }
    found
}

fn pipelines_dir(config: &Path, server: &Server) -> PathBuf {
    config.parent().unwrap_or(Path::new("")).join(&server.pipelines.dir)
}

fn read(path: &Path, overrides: &[Override], errors: &mut ConfigErrors) -> (Config, Places, Vec<Places>) {
    let (ours, of_server): (Vec<&Override>, Vec<&Override>) =
        overrides.iter().partition(|o| o.keys.first().is_some_and(|k| k == "pipeline"));
    let shape = Shape::of::<Server>();
    let mut tree = read_file(path, errors);
    for o in of_server {
        env::apply(o, &o.keys, &mut tree, &shape, errors);
    }
    let (server, places) = typed::<Server>(&tree, &shape, errors);
    let server = server.unwrap_or_default();

    let dir = pipelines_dir(path, &server);
    let folders = pipeline_folders(&dir, &places, errors);
    let shape = Shape::of::<Pipeline>();
    let mut used = BTreeSet::new();
    let (mut pipelines, mut pipeline_places) = (Vec::new(), Vec::new());
    for (name, file) in &folders {
        let mut tree = read_file(file, errors);
        for o in ours.iter().filter(|o| o.keys.get(1) == Some(name)) {
            used.insert(&o.variable);
            env::apply(o, &o.keys[2..], &mut tree, &shape, errors);
        }
        let (pipeline, places) = typed::<Pipeline>(&tree, &shape, errors);
        if let Some(pipeline) = pipeline {
            let models = model_files(file, errors);
            let mut pipeline = pipeline;
            for (number, expectation) in pipeline.expectations.iter_mut().enumerate() {
                expectation.origin = places.near(&format!("expectation[{number}]"));
            }
            pipelines.push(Arc::new(Pipeline { name: name.clone(), models, ..pipeline }));
            pipeline_places.push(places);
        }
    }
    for o in ours.iter().filter(|o| !used.contains(&o.variable)) {
        let named = o.keys.get(1).map(String::as_str).unwrap_or_default();
        let hint = match did_you_mean(named, folders.iter().map(|(name, _)| name.as_str())) {
            Some(near) => format!("did you mean BOATHOUSE__PIPELINE__{}__…?", near.to_uppercase()),
            None => format!("pipelines are the folders in {}", dir.display()),
        };
        errors.add(Origin::Env(o.variable.clone()), format!("there is no pipeline `{named}`"), hint);
    }
    (Config { server, pipelines }, places, pipeline_places)
}

/// Checks a tree against the shape of its type and reads it.
fn typed<T: DeserializeOwned>(tree: &Node, shape: &Shape, errors: &mut ConfigErrors) -> (Option<T>, Places) {
    let mut places = Places::of(tree);
    let value = check::check(tree, shape, &mut places.broken, errors);
    match serde_json::from_value(value) {
        Ok(typed) => (Some(typed), places),
        Err(e) => {
            errors.add(tree.origin.clone(), e.to_string(), "docs/configuration.md lists all keys");
            (None, places)
        }
    }
}

fn read_file(path: &Path, errors: &mut ConfigErrors) -> Node {
    let shared = Arc::new(path.to_path_buf());
    let origin = Origin::File { path: shared.clone(), line: None };
    match std::fs::read_to_string(path) {
        Ok(text) => tree::parse(&shared, &text, errors),
        Err(e) => {
            errors.add(origin.clone(), format!("cannot be read: {e}"), "is the path right, and may this user read it?");
            Node::table(origin)
        }
    }
}

/// The pipelines' names and files, by name.
fn pipeline_folders(dir: &Path, places: &Places, errors: &mut ConfigErrors) -> Vec<(String, PathBuf)> {
    let origin = places.near("pipelines.dir");
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) => {
            let hint = "make the folder, or set pipelines.dir; a relative path counts from the configuration's folder";
            errors.add(origin, format!("the pipelines' folder {} cannot be read: {e}", dir.display()), hint);
            return Vec::new();
        }
    };
    let mut folders: Vec<(String, PathBuf)> = entries
        .filter_map(Result::ok)
        .filter(|e| e.path().is_dir() && !e.file_name().to_string_lossy().starts_with('.'))
        .map(|e| (e.file_name().to_string_lossy().into_owned(), e.path().join("pipeline.toml")))
        .collect();
    folders.sort();
    if folders.is_empty() {
        let hint = format!("add {}/NAME/pipeline.toml", dir.display());
        errors.add(origin, format!("there is no pipeline in {}", dir.display()), hint);
    }
    folders
}

/// The files `gold/*.sql` beside a `pipeline.toml`, by name; a pipeline without the folder has no models.
fn model_files(pipeline: &Path, errors: &mut ConfigErrors) -> Vec<ModelFile> {
    let dir = pipeline.with_file_name("gold");
    let Ok(entries) = std::fs::read_dir(&dir) else { return Vec::new() };
    let mut paths: Vec<PathBuf> =
        entries.filter_map(|e| Some(e.ok()?.path())).filter(|p| p.extension().is_some_and(|e| e == "sql")).collect();
    paths.sort();
    let mut models = Vec::new();
    for path in paths {
        let name = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
        match std::fs::read_to_string(&path) {
            Ok(text) => models.push(ModelFile { name, path: Arc::new(path), text }),
            Err(e) => {
                let origin = Origin::File { path: Arc::new(path), line: None };
                errors.add(origin, format!("cannot be read: {e}"), "may this user read it, and is it UTF-8?");
            }
        }
    }
    models
}

/// The values in force, flattened.
fn collect<T: serde::Serialize>(of: &T, prefix: &str, places: &Places, out: &mut Vec<Setting>) {
    // Configuration types serialise by construction: no map keys but texts, no failing fields.
    let value = serde_json::to_value(of).unwrap_or_default();
    flatten(&value, "", &mut |path, value| {
        let secret = path.strip_prefix("kafka.properties.").is_some_and(validate::is_secret_property)
            || path.strip_prefix("lakehouse.options.").is_some_and(validate::is_secret_option);
        out.push(Setting {
            path: tree::join(prefix, path),
            value: if secret { Value::from("***") } else { value.clone() },
            origin: places.of_value(path),
        });
    });
}

fn flatten(value: &Value, path: &str, out: &mut impl FnMut(&str, &Value)) {
    match value {
        Value::Object(map) if !map.is_empty() || path.is_empty() => {
            for (key, value) in map {
                flatten(value, &tree::join(path, key), out);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            for (i, value) in items.iter().enumerate() {
                flatten(value, &format!("{path}[{i}]"), out);
            }
        }
        value => out(path, value),
    }
}
