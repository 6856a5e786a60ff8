//! Configuration: what is read, what is refused, with which words.

use std::path::{Path, PathBuf};

use boathouse::config::{Config, ConfigErrors, Loaded, Origin, docs};

/// The pipeline of the repository, without its aggregates.
const FIELDS: &str = r#"
topic = "user-events"
[[field]]
name = "event_id"
type = "string"
role = "event_id"
[[field]]
name = "user_id"
type = "int"
[[field]]
name = "event_type"
type = "string"
[[field]]
name = "timestamp"
type = "timestamp"
role = "event_time"
"#;

/// A configuration folder with these files.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new(server: &str, pipelines: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("boathouse.toml"), server).unwrap();
        for (name, text) in pipelines {
            let folder = dir.path().join("pipelines").join(name);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("pipeline.toml"), text).unwrap();
        }
        Self(dir)
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("boathouse.toml")
    }

    fn load(&self, env: &[(&str, &str)]) -> Result<Loaded, ConfigErrors> {
        Loaded::load(Some(&self.file()), env.iter().map(|(k, v)| (k.to_string(), v.to_string())))
    }

    /// The mistakes, one a line, as `file:line: message (hint)`, with paths relative to the folder.
    fn mistakes(&self, env: &[(&str, &str)]) -> Vec<String> {
        let errors = self.load(env).expect_err("mistakes");
        let root = format!("{}/", self.0.path().display());
        let line = |e: &boathouse::config::ConfigError| {
            format!("{}: {} ({})", e.origin, e.message, e.hint.as_deref().unwrap_or("-")).replace(&root, "")
        };
        errors.0.iter().map(line).collect()
    }
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_shipped_configuration_is_right() {
    let path = repository().join("config/boathouse.toml");
    let config = Config::load(Some(&path)).unwrap();
    assert!(config.server.pipelines.dir.ends_with("config/pipelines"));
    let names: Vec<&str> = config.pipelines.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["user_events"]);
    let aggregates: Vec<&str> = config.pipelines[0].aggregates.iter().map(|a| a.name.as_str()).collect();
    assert_eq!(aggregates, ["events_per_minute", "logins_per_source", "purchases_per_minute"]);
}

#[test]
fn every_key_has_a_default() {
    let folder = Folder::new("", &[("p", FIELDS)]);
    let loaded = folder.load(&[]).unwrap();
    assert_eq!(loaded.config.server.kafka.brokers, "127.0.0.1:9092");
    assert!(loaded.settings.iter().filter(|s| !s.path.starts_with("pipeline.p.")).all(|s| s.origin == Origin::Default));
}

#[test]
fn all_mistakes_are_reported_at_once_with_line_and_hint() {
    let server = "\
[kafka]
broker = \"a:1\"
group = 7

[clickhouse]
url = \"clickhouse://h:9000\"

[metrics]
budget = \"1MiB\"
";
    let pipeline = format!(
        "{FIELDS}
[[aggregate]]
name = \"windows\"
measure = \"n\"
dimensions = [\"event_typ\", \"user_id\"]
window = \"90s\"
[time]
window = \"7m\"
bound = \"soon\"
"
    );
    let folder = Folder::new(server, &[("p", &pipeline)]);
    let mistakes = folder.mistakes(&[]);
    let expected = [
        "boathouse.toml:2: unknown key `broker` in `kafka` (did you mean `brokers`?)",
        "boathouse.toml:3: `kafka.group` is 7 (write a text)",
        "boathouse.toml:6: `clickhouse.url` \"clickhouse://h:9000\" is not an HTTP address (as in \"http://127.0.0.1:8123\"; the native port 9000 is not spoken)",
        "boathouse.toml:9: unknown key `budget` in `metrics` (did you mean `memory.budget`?)",
        "pipelines/p/pipeline.toml:19: an aggregate cannot be named `windows` (the platform's own tables in ClickHouse have this name)",
        "pipelines/p/pipeline.toml:21: dimension `event_typ` is no field of this pipeline (did you mean `event_type`?)",
        "pipelines/p/pipeline.toml:21: dimension `user_id` is no string field (only string fields group and filter)",
        "pipelines/p/pipeline.toml:22: window 1m 30s is no multiple of time.window, 7m (make it a multiple, or leave it out)",
        "pipelines/p/pipeline.toml:24: `time.window` 7m does not divide a day into whole seconds (windows begin at midnight UTC, as with 10s, 1m, 5m, 1h)",
        "pipelines/p/pipeline.toml:25: `time.bound` is \"soon\" (write a duration like \"30s\" or \"10m\")",
    ];
    assert_eq!(mistakes, expected);
}

#[test]
fn a_filter_names_a_string_field_and_values() {
    let pipeline = format!(
        "{FIELDS}
[[aggregate]]
name = \"a\"
measure = \"n\"
filter = {{ event_typ = [\"login\"], user_id = [\"7\"], event_type = [] }}
"
    );
    let mistakes = Folder::new("", &[("p", &pipeline)]).mistakes(&[]);
    let expected = [
        "pipelines/p/pipeline.toml:21: filter `event_typ` is no field of this pipeline (did you mean `event_type`?)",
        "pipelines/p/pipeline.toml:21: filter `user_id` is no string field (only string fields group and filter)",
        "pipelines/p/pipeline.toml:21: the filter on `event_type` has no value, so nothing would count (name the values)",
    ];
    assert_eq!(mistakes.len(), expected.len(), "{mistakes:#?}");
    assert!(expected.iter().all(|mistake| mistakes.iter().any(|m| m == mistake)), "{mistakes:#?}");
}

#[test]
fn roles_fields_and_reserved_columns() {
    let pipeline = r#"
topic = "t"
[[field]]
name = "id"
type = "int"
role = "event_id"
[[field]]
name = "offset"
type = "int"
[[field]]
name = "Page"
type = "string"
[[field]]
name = "id"
type = "string"
role = "event_id"
"#;
    let mistakes = Folder::new("", &[("p", pipeline)]).mistakes(&[]).join("\n");
    for part in [
        "pipeline.toml:6: the role event_id needs the type string",
        "pipeline.toml:8: field `offset` cannot have this name (Bronze has a column of this name",
        "pipeline.toml:11: field `Page` begins with no small letter",
        "pipeline.toml:14: field `id` is there twice (the first is at pipelines/p/pipeline.toml:4)",
        "pipeline.toml:16: a second field with the role event_id",
        "no field has the role event_time (give one field of type timestamp: role = \"event_time\")",
    ] {
        assert!(mistakes.contains(part), "{part}\nnot in\n{mistakes}");
    }
}

#[test]
fn the_event_time_field_may_be_named_like_its_column() {
    let pipeline = FIELDS.replace("name = \"timestamp\"", "name = \"event_time\"");
    Folder::new("", &[("p", &pipeline)]).load(&[]).unwrap();
}

#[test]
fn a_wrong_value_hides_no_other_mistake_and_makes_none() {
    let pipeline =
        FIELDS.replace("type = \"timestamp\"", "type = \"timestmp\"").replace("\"user-events\"", "\"user events\"");
    let mistakes = Folder::new("", &[("p", &pipeline)]).mistakes(&[]);
    assert_eq!(mistakes.len(), 2, "{mistakes:#?}");
    assert!(mistakes[0].contains("pipeline.toml:2: `topic` \"user events\" is no topic name"), "{mistakes:#?}");
    assert!(mistakes[1].contains("did you mean \"timestamp\"?"), "{mistakes:#?}");
}

#[test]
fn missing_keys_are_named_where_they_belong() {
    let mistakes = Folder::new("", &[("p", "[[field]]\nname = \"a\"\n")]).mistakes(&[]).join("\n");
    assert!(
        mistakes.contains(
            "pipelines/p/pipeline.toml: `topic` is missing (add `topic = …`, a text: The Kafka topic to read.)"
        ),
        "{mistakes}"
    );
    assert!(mistakes.contains("pipelines/p/pipeline.toml:1: `field[0].type` is missing"), "{mistakes}");
}

#[test]
fn aggregate_names_are_unique_across_pipelines() {
    let with = format!("{FIELDS}\n[[aggregate]]\nname = \"n\"\nmeasure = \"c\"\n");
    let mistakes = Folder::new("", &[("a", &with), ("b", &with)]).mistakes(&[]);
    assert_eq!(mistakes.len(), 1, "{mistakes:#?}");
    assert!(
        mistakes[0].starts_with("pipelines/b/pipeline.toml:19: aggregate `n` is there twice (the first is at"),
        "{mistakes:#?}"
    );
    assert!(mistakes[0].contains("pipelines/a/pipeline.toml:19"), "{mistakes:#?}");
}

#[test]
fn settings_that_exactly_once_depends_on_cannot_be_overridden() {
    let server =
        "[kafka.properties]\nauto.offset.reset = \"latest\"\n\"group.id\" = \"x\"\nsocket.nagle.disable = true\n";
    let mistakes =
        Folder::new(server, &[("p", FIELDS)]).mistakes(&[("BOATHOUSE__KAFKA__PROPERTIES__ISOLATION_LEVEL", "x")]);
    assert_eq!(mistakes.len(), 3, "{mistakes:#?}");
    assert!(
        mistakes[0].starts_with("boathouse.toml:2: `kafka.properties.auto.offset.reset` cannot be set"),
        "{mistakes:#?}"
    );
    assert!(mistakes[1].starts_with("boathouse.toml:3: `kafka.properties.group.id` cannot be set"), "{mistakes:#?}");
    assert!(
        mistakes[2].starts_with("BOATHOUSE__KAFKA__PROPERTIES__ISOLATION_LEVEL in the environment: "),
        "{mistakes:#?}"
    );
}

#[test]
fn librdkafka_judges_its_own_settings() {
    let server = "[kafka.properties]\n\"no.such.nonsense\" = \"1\"\n";
    let mistakes = Folder::new(server, &[("p", FIELDS)]).mistakes(&[]);
    assert_eq!(mistakes.len(), 1, "{mistakes:#?}");
    assert!(mistakes[0].contains("boathouse.toml:2: `kafka.properties.no.such.nonsense` = \"1\""), "{mistakes:#?}");
}

#[test]
fn the_environment_overrides_files() {
    let with = format!("{FIELDS}\n[[aggregate]]\nname = \"n\"\nmeasure = \"c\"\n");
    let folder =
        Folder::new("[kafka]\nbrokers = \"a:1\"\nproperties = { client.id = \"file\" }\n", &[("user_events", &with)]);
    let env = [
        ("BOATHOUSE__KAFKA__BROKERS", "b:2,c:3"),
        ("BOATHOUSE__KAFKA__PROPERTIES__CLIENT_ID", "env"),
        ("BOATHOUSE__CLICKHOUSE__PASSWORD", "hunter2"),
        ("BOATHOUSE__CLICKHOUSE__PASSWORD_FILE", ""),
        ("BOATHOUSE__PIPELINE__USER_EVENTS__BRONZE__FLUSH_INTERVAL", "5s"),
        ("BOATHOUSE__PIPELINE__USER_EVENTS__REALTIME__MAX_COMBINATIONS", "7"),
        ("BOATHOUSE__PIPELINE__USER_EVENTS__AGGREGATE__N__WINDOW", "1h"),
        ("BOATHOUSE__PIPELINE__USER_EVENTS__AGGREGATE__N__DIMENSIONS", "event_type"),
        ("BOATHOUSE_BROKER", "not one of these"),
    ];
    let loaded = folder.load(&env).unwrap();
    let (server, pipeline) = (&loaded.config.server, &loaded.config.pipelines[0]);
    assert_eq!(server.kafka.brokers, "b:2,c:3");
    assert_eq!(server.kafka.properties["client.id"], "env");
    assert_eq!(server.clickhouse.password.reveal(), "hunter2");
    assert_eq!(pipeline.bronze.flush_interval.as_secs(), 5);
    assert_eq!(pipeline.realtime.max_combinations, 7);
    assert_eq!(pipeline.aggregates[0].window.unwrap().as_secs(), 3600);
    assert_eq!(pipeline.aggregates[0].dimensions, ["event_type"]);
    let setting = |path: &str| loaded.settings.iter().find(|s| s.path == path).unwrap();
    assert_eq!(setting("kafka.brokers").origin, Origin::Env("BOATHOUSE__KAFKA__BROKERS".into()));
    assert_eq!(setting("clickhouse.password").value, "***");
    assert!(setting("pipeline.user_events.topic").origin.to_string().ends_with("pipeline.toml:2"));
    assert_eq!(setting("pipeline.user_events.time.window").origin, Origin::Default);
    assert!(!format!("{:?}", loaded).contains("hunter2"));
}

#[test]
fn variables_that_name_nothing_are_mistakes() {
    let mistakes = Folder::new("", &[("user_events", FIELDS)])
        .mistakes(&[
            ("BOATHOUSE__KAFKA__BROKER", "x:1"),
            ("BOATHOUSE__KAFKA", "x"),
            ("BOATHOUSE__PIPELINE__USER_EVENT__TOPIC", "x"),
            ("BOATHOUSE__PIPELINE__USER_EVENTS__TIME__WINDOW", "often"),
        ])
        .join("\n");
    for part in [
        "BOATHOUSE__KAFKA__BROKER in the environment: no configuration key `BROKER` (did you mean `BROKERS`?)",
        "BOATHOUSE__KAFKA in the environment: names a section, not a key",
        "there is no pipeline `user_event` (did you mean BOATHOUSE__PIPELINE__USER_EVENTS__…?)",
        "BOATHOUSE__PIPELINE__USER_EVENTS__TIME__WINDOW in the environment: `time.window` is \"often\"",
    ] {
        assert!(mistakes.contains(part), "{part}\nnot in\n{mistakes}");
    }
}

#[test]
fn a_lakehouse_that_cannot_be_reached_is_refused() {
    let mistakes = Folder::new("[lakehouse]\nuri = \"gs://bucket/lake\"\n", &[("p", FIELDS)]).mistakes(&[]);
    assert_eq!(mistakes.len(), 1, "{mistakes:#?}");
    assert!(mistakes[0].starts_with("boathouse.toml:2: `lakehouse.uri` `gs://bucket/lake`"), "{mistakes:#?}");
}

#[test]
fn options_of_the_object_store_are_checked_and_their_secrets_hidden() {
    let file = "[lakehouse]\nuri = \"s3://bucket/lake\"\n[lakehouse.options]\naws_regoin = \"eu\"\nbucket = \"b\"\n";
    let mistakes = Folder::new(file, &[("p", FIELDS)]).mistakes(&[]);
    assert_eq!(mistakes.len(), 2, "{mistakes:#?}");
    assert!(mistakes[0].starts_with("boathouse.toml:4: `lakehouse.options.aws_regoin`"), "{mistakes:#?}");
    assert!(mistakes[1].contains("names the bucket"), "{mistakes:#?}");

    let options = [("BOATHOUSE__LAKEHOUSE__OPTIONS__AWS_REGION", "eu-central-1")];
    let mistakes = Folder::new("", &[("p", FIELDS)]).mistakes(&options);
    assert_eq!(mistakes.len(), 1, "a folder has no options: {mistakes:#?}");
    assert!(mistakes[0].contains("lakehouse.options.aws_region"), "{mistakes:#?}");
}

#[test]
fn broken_files_and_folders_are_named() {
    let mistakes = Folder::new("[kafka\nbrokers = 1\n", &[("p", FIELDS)]).mistakes(&[]);
    assert!(mistakes[0].starts_with("boathouse.toml:1: not valid TOML: "), "{mistakes:#?}");
    let mistakes = Folder::new("", &[]).mistakes(&[]);
    assert!(mistakes[0].contains("the pipelines' folder") && mistakes[0].contains("cannot be read"), "{mistakes:#?}");
    let folder = Folder::new("[clickhouse]\npassword_file = \"/no/such/secret\"\n", &[("p", FIELDS)]);
    std::fs::create_dir(folder.0.path().join("pipelines/empty")).unwrap();
    let mistakes = folder.mistakes(&[]).join("\n");
    assert!(
        mistakes.contains("boathouse.toml:2: `clickhouse.password_file` /no/such/secret cannot be read"),
        "{mistakes}"
    );
    assert!(mistakes.contains("pipelines/empty/pipeline.toml: cannot be read"), "{mistakes}");
    let errors = Config::load(Some(Path::new("/no/such/boathouse.toml"))).unwrap_err();
    assert!(errors.to_string().contains("/no/such/boathouse.toml: cannot be read"), "{errors}");
}

#[test]
fn the_reference_is_up_to_date() {
    let path = repository().join("docs/configuration.md");
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == docs::reference(),
        "docs/configuration.md is out of date: boathouse validate --reference > docs/configuration.md"
    );
}

#[test]
fn what_layers_keep_fits_together() {
    let folder = tempfile::tempdir().expect("a folder");
    let pipeline = folder.path().join("pipelines/user_events");
    std::fs::create_dir_all(&pipeline).expect("a folder");
    let shipped = std::fs::read_to_string(repository().join("config/pipelines/user_events/pipeline.toml")).unwrap();
    std::fs::write(pipeline.join("pipeline.toml"), shipped).unwrap();
    std::fs::write(folder.path().join("boathouse.toml"), "").unwrap();
    let said = |settings: &[(&str, &str)]| {
        let settings = settings.iter().map(|(key, value)| (format!("BOATHOUSE__{key}"), value.to_string()));
        match Loaded::load(Some(&folder.path().join("boathouse.toml")), settings) {
            Ok(_) => String::new(),
            Err(e) => e.to_string(),
        }
    };
    const OF: &str = "PIPELINE__USER_EVENTS__RETENTION__";
    let of = |layer: &str| format!("{OF}{layer}");
    assert_eq!(said(&[(&of("BRONZE"), "32d"), (&of("SILVER"), "60d"), (&of("GOLD"), "60d")]), "");
    assert!(said(&[(&of("BRONZE"), "31d")]).contains("at least retention.realtime, 30days, and 2d"));
    assert!(said(&[(&of("BRONZE"), "90d"), (&of("REALTIME"), "forever")]).contains("`retention.realtime` has none"));
    assert!(said(&[(&of("GOLD"), "90d")]).contains("shorter than `retention.silver`"));
    assert!(said(&[(&of("SILVER"), "1d"), (&of("GOLD"), "30d")]).contains("`retention.silver` is too short"));
    let memory =
        |total: &str| said(&[("MEMORY__TOTAL", total), ("MEMORY__BUDGET", "64MiB"), ("BATCH__MEMORY", "192MiB")]);
    assert_eq!(memory("256MiB"), "");
    assert!(memory("255MiB").contains("less than memory.budget 64MiB and batch.memory 192MiB together"));
    assert!(said(&[("UPKEEP__VACUUM_AFTER", "6d")]).contains("`upkeep.vacuum_after`"));
    assert!(said(&[("UPKEEP__VACUUM_AFTER", "31d")]).contains("`upkeep.vacuum_after`"));
    let run = |limit: &str| said(&[("PIPELINE__USER_EVENTS__SCHEDULE__TIME_LIMIT", limit)]);
    assert_eq!(run("6d"), "");
    assert!(run("7d").contains("`schedule.time_limit` 7days is too long"));
    const BAD: &str = "PIPELINE__USER_EVENTS__BAD_RECORDS__";
    let bad = |share: &str, of: &str| said(&[(&format!("{BAD}STOP_SHARE"), share), (&format!("{BAD}OF_LAST"), of)]);
    assert_eq!((bad("0", "1"), bad("0.999", "1000000")), (String::new(), String::new()));
    assert!(bad("1", "10").contains("`bad_records.stop_share` is 1\n") && bad("-0.1", "10").contains("at least 0"));
    assert!(bad("NaN", "10").contains("`bad_records.stop_share` is") && bad("half", "10").contains("write a number"));
    assert!(bad("0.5", "0").contains("`bad_records.of_last` is 0") && bad("0.5", "1000001").contains("1 to 1000000"));
    assert!(said(&[("UPKEEP__CRON", "61 * * * *")]).contains("`upkeep.cron`"));
    assert!(said(&[("RECONCILE__CRON", "61 * * * *")]).contains("`reconcile.cron`"));
    assert!(said(&[("BATCH__SPILL_MAX", "1MiB")]).contains("`batch.spill_max`"));
}

#[test]
fn an_expectation_that_is_wrong_is_named_with_its_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let pipeline = folder.path().join("pipelines/user_events");
    std::fs::create_dir_all(&pipeline).expect("a folder");
    let shipped = std::fs::read_to_string(repository().join("config/pipelines/user_events/pipeline.toml")).unwrap();
    let text =
        shipped + "\n[[expectation]]\nname = \"no_such\"\ncheck = \"not_null\"\ncolumns = [\"no_such_column\"]\n";
    let line = text.lines().position(|l| l == "name = \"no_such\"").unwrap();
    std::fs::write(pipeline.join("pipeline.toml"), text).unwrap();
    std::fs::write(folder.path().join("boathouse.toml"), "").unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_boathouse"))
        .arg("--config")
        .arg(folder.path().join("boathouse.toml"))
        .arg("validate")
        .output()
        .expect("the program runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    let place = format!("pipeline.toml:{line}: expectation `no_such`");
    assert!(!output.status.success() && said.contains(&place), "{place}\n{said}");
}
