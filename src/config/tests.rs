//! The whole way from text to settings, and what people read when it is refused.

use super::*;
use crate::model::{Age, App};

fn env(variables: &[(&str, &str)]) -> Env {
    variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn valid(text: &str, variables: &[(&str, &str)]) -> Config {
    Config::from_toml(text, "logtier.toml", &env(variables)).unwrap_or_else(|problems| panic!("{problems}"))
}

fn refused(text: &str) -> String {
    refused_with(text, &[])
}

fn refused_with(text: &str, variables: &[(&str, &str)]) -> String {
    Config::from_toml(text, "logtier.toml", &env(variables)).expect_err("refused").to_string()
}

#[test]
fn without_anything_both_tiers_are_embedded() {
    let config = Config::load(None, &Env::new()).expect("valid");
    assert!(config.data_dir.is_absolute() && config.data_dir.ends_with("logtier-data"));
    assert_eq!(config.cold.folder(), Some(config.data_dir.join("cold")));
    let [server] = config.hot.servers.as_slice() else { panic!("{:?}", config.hot) };
    assert_eq!((server.shards.clone(), config.hot.shards), (0..16, 16));
    assert_eq!(server.url.to_string(), format!("sqlite://{}/hot.db", config.data_dir.display()));
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:7710");
    assert_eq!(config.archive.schedule.to_string(), "*/10 * * * * (UTC)");
}

#[test]
fn unknown_names_wrong_types_and_wrong_values_are_reported_together() {
    insta::assert_snapshot!(refused(
        r#"
dta_dir = "/var/lib/logtier"
[server]
listen = 7710
[hot]
shards = "16"
[retention.default]
hot_fr = "3d"
cold_for = "soon"
[colder]
[cold]
url = "s3://without-a-hot-url"
"#
    ), @r#"
    logtier.toml:2: dta_dir
      unknown setting "dta_dir"
      help: did you mean "data_dir"?
    logtier.toml:4: listen = 7710
      invalid type: integer `7710`, expected a text in quotes
    logtier.toml:6: shards = "16"
      invalid type: string "16", expected a whole number without quotes
    logtier.toml:8: hot_fr
      unknown setting "hot_fr"
      help: did you mean "hot_for"?
    logtier.toml:9: cold_for = "soon"
      "soon" is no span of time
      help: write a whole number and one of ms, s, m, h, d, w, y, as in "90s", "12h", "3d", or "forever"
    logtier.toml:10: [colder]
      unknown setting "colder"
      help: did you mean "cold"?
    "#);
}

#[test]
fn wrong_values_are_reported_together() {
    insta::assert_snapshot!(refused(
        r#"
[server]
listen = "localhost:7710"
[archive]
schedule = "0 3 * * 1"
timezone = "Europe/Berlim"
idle_after = "1 day"
object_size = "64M"
[cold]
zstd_level = 22
frame_size = "1KiB"
[log]
level = "inof"
format = "xml"
[ingest]
dedup_window = "forever"
queue_size = "1MiB"
"#
    ), @r#"
    logtier.toml:3: listen = "localhost:7710"
      "localhost:7710" is no address with a port
      help: write "127.0.0.1:7710", "0.0.0.0:7710" or "[::1]:7710"
    logtier.toml:5: schedule = "0 3 * * 1"
      a number in the weekday field, "1"
      help: cron programs disagree on which day is 1: write names, as in "Mon-Fri" or "Sat,Sun"
    logtier.toml:6: timezone = "Europe/Berlim"
      unknown time zone "Europe/Berlim"
      help: did you mean "Europe/Berlin"?
    logtier.toml:7: idle_after = "1 day"
      "1 day" is no span of time
      help: write a whole number and one of ms, s, m, h, d, w, y, as in "90s", "12h", "3d"
    logtier.toml:8: object_size = "64M"
      "64M" is no size
      help: write a whole number and one of B, KiB, MiB, GiB, TiB, KB, MB, GB, TB, as in "64MiB"
    logtier.toml:10: zstd_level = 22
      22 is not between 1 and 19
    logtier.toml:11: frame_size = "1KiB"
      1KiB is not between 64KiB and 16MiB
    logtier.toml:13: level = "inof"
      unknown level "inof"
      help: known are off, error, warn, info, debug, trace
    logtier.toml:14: format = "xml"
      unknown format "xml"
      help: write "text" or "json"
    logtier.toml:16: dedup_window = "forever"
      this span must have an end
      help: write a number and a unit, as in "24h"
    logtier.toml:17: queue_size = "1MiB"
      a queue of 1MiB could never take a body of max_body_size, 16MiB
      help: raise ingest.queue_size or lower server.max_body_size
    "#);
}

#[test]
fn broken_toml() {
    insta::assert_snapshot!(refused("[hot]\nurl = \"mysql://u:hunter2@db/x\n"), @r#"
    logtier.toml:2: url = "mysql://u:***@db/x
      invalid basic string, expected `"`
    "#);
    insta::assert_snapshot!(refused("[hot]\nshards = 1\nshards = 2\n"), @r#"
    logtier.toml:3: shards = 2
      duplicate key
    "#);
}

#[test]
fn retention_rules() {
    insta::assert_snapshot!(refused(
        r#"
[retention]
default = { hot_for = "1y" }
[[retention.rule]]
name = "billing"
app = "billing"
cold_for = "forever"
[[retention.rule]]
name = "billing-failed"
app = "billing"
outcome = "failed"
hot_for = "forever"
[[retention.rule]]
name = "default"
app = ""
[[retention.rule]]
name = "billing"
app = "b["
outcome = "faild"
cold_for = "99"
[[retention.rule]]
name = "a b"
"#
    ), @r#"
    logtier.toml:3: default = { hot_for = "1y" }
      cold_for, 180d, is shorter than hot_for, 1y
      help: both count from the finish of a run: cold_for is how long it is kept in all
    logtier.toml:8: [[retention.rule]]
      rule "billing-failed" can never match
      help: rule "billing" above it takes all that it would match, and the first match wins: put "billing-failed" first
    logtier.toml:12: hot_for = "forever"
      cold_for, 180d, is shorter than hot_for, forever
      help: both count from the finish of a run: cold_for is how long it is kept in all
    logtier.toml:14: name = "default"
      "default" is the rule of [retention.default]
      help: give this rule another name
    logtier.toml:15: app = ""
      an empty pattern matches nothing
      help: leave it out to match everything
    logtier.toml:17: name = "billing"
      two rules are called "billing"
      help: names are unique: object keys carry them
    logtier.toml:18: app = "b["
      error parsing glob 'b[': unclosed character class; missing ']'
      help: write *, ?, [a-z] or {a,b}; \ before one of these means itself
    logtier.toml:19: outcome = "faild"
      unknown outcome "faild"
      help: did you mean "failed"?
    logtier.toml:20: cold_for = "99"
      "99" is no span of time
      help: write a whole number and one of ms, s, m, h, d, w, y, as in "90s", "12h", "3d", or "forever"
    logtier.toml:22: name = "a b"
      rule name "a b" may only hold letters, digits, '-', '_' and '.'
    "#);
}

#[test]
fn rules_that_can_never_match() {
    let check = |earlier: &str, later: &str, dead: bool| {
        let rule = |name: &str, rest: &str| format!("[[retention.rule]]\nname = \"{name}\"\n{rest}\n");
        let text = rule("earlier", earlier) + &rule("later", later);
        let refused = Config::from_toml(&text, "f", &Env::new()).err().map(|problems| problems.to_string());
        assert_eq!(refused.is_some_and(|text| text.contains("rule \"later\" can never match")), dead, "{text}");
    };
    check("", "app = \"a\"", true);
    check("app = \"*\"", "", true);
    check("app = \"a*\"", "app = \"a*\"\njob = \"x\"", true);
    check("app = \"a*\"", "app = \"abc\"", true);
    check("job = \"*\"", "job = \"x-*\"", true);
    check("outcome = \"failed\"", "app = \"a\"\noutcome = \"failed\"", true);
    check("app = \"a*\"", "app = \"b\"", false);
    check("app = \"a*\"", "app = \"a?\"", false);
    check("app = \"a\"", "", false);
    // An attempt may have no job.
    check("job = \"*\"", "app = \"a\"", false);
    check("outcome = \"failed\"", "app = \"a\"", false);
}

#[test]
fn what_a_rule_does_not_set_comes_from_default() {
    let config = valid(
        "[retention.default]\nhot_for = \"1h\"\nkeep_at_least = 2\n[[retention.rule]]\nname = \"r\"\napp = \"a\"\ncold_for = \"7y\"",
        &[("LOGTIER_RETENTION__DEFAULT__HOT_FOR", "0s")],
    );
    let rule = config.retention.rules.rule_for(&"a".parse::<App>().expect("an app"), None, None);
    assert_eq!((rule.name.as_str(), show_age(rule.hot_for), show_age(rule.cold_for)), ("r", "0s".into(), "7y".into()));
    assert_eq!((rule.keep_at_least, show_age(rule.max_open_for)), (2, "1w".into()));
    assert_eq!(config.retention.rules.rule_for(&App::default(), None, None).name.as_str(), "default");
    assert_eq!(config.retention.forget_after, Age::For(parse_span("365d").expect("a span")));
}

#[test]
fn no_private_islands() {
    let mysql = "[hot]\nurl = \"mysql://db/logtier\"\n";
    insta::assert_snapshot!(refused(mysql), @r#"
    logtier.toml:2: url = "mysql://db/logtier"
      hot.url is set, but cold.url is not
      help: set both, or none for embedded tiers: cold.url = "s3://bucket/logtier"
    "#);
    insta::assert_snapshot!(refused("[cold]\nurl = \"s3://bucket\""), @r#"
    logtier.toml:2: url = "s3://bucket"
      cold.url is set, but hot.url is not
      help: set both, or none for embedded tiers: hot.url = "mysql://logtier@db/logtier"
    "#);
    insta::assert_snapshot!(refused(&format!("{mysql}[cold]\nurl = \"/mnt/logs\"")), @r#"
    logtier.toml:4: url = "/mnt/logs"
      a MySQL hot tier with a local folder: other daemons could not read what this one archives
      help: use a bucket, or say with cold.shared = true that the folder is the same for all daemons
    "#);
    let config = valid(&format!("{mysql}[cold]\nurl = \"/mnt/logs\""), &[("LOGTIER_COLD__SHARED", "true")]);
    assert_eq!(config.cold.url.as_str(), "file:///mnt/logs");
    valid("[hot]\nurl = \"sqlite:a.db\"\n[cold]\nurl = \"file:///b\"", &[]);

    let required = env(&[("LOGTIER_REQUIRE_CONFIG", "1")]);
    insta::assert_snapshot!(Config::load(None, &required).expect_err("refused"), @r#"
    configuration:
      LOGTIER_REQUIRE_CONFIG is set, but there is no configuration
      help: name a file with --config or LOGTIER_CONFIG, or set LOGTIER_HOT__URL and LOGTIER_COLD__URL
    "#);
    Config::load(None, &env(&[("LOGTIER_REQUIRE_CONFIG", "0")])).expect("valid");
    let urls =
        [("LOGTIER_REQUIRE_CONFIG", "1"), ("LOGTIER_HOT__URL", "mysql://db/x"), ("LOGTIER_COLD__URL", "s3://b/p")];
    Config::load(None, &env(&urls)).expect("valid");
    insta::assert_snapshot!(Config::load(None, &env(&[("LOGTIER_CONFIG", "/no/such.toml")])).expect_err("refused"), @r#"
    configuration:
      cannot read /no/such.toml: No such file or directory (os error 2)
    "#);
}

#[test]
fn an_open_door_is_refused() {
    insta::assert_snapshot!(refused("[server]\nlisten = \"0.0.0.0:7710\""), @r#"
    logtier.toml:2: listen = "0.0.0.0:7710"
      on 0.0.0.0:7710 everyone could read and delete logs
      help: set server.token_file, or server.allow_anonymous = true if that is what you want
    "#);
    insta::assert_snapshot!(refused("[server]\ntoken = \"\"\nallow_anonymous = true"), @r#"
    logtier.toml:2: token = ***
      the token is empty
    logtier.toml:3: allow_anonymous = true
      allow_anonymous = true would make the token worthless
      help: remove one of them
    "#);
    valid("server = { listen = \"0.0.0.0:7710\", allow_anonymous = true }", &[]);
    valid("server.listen = \"[::]:7710\"", &[("LOGTIER_SERVER__TOKEN", "12345")]);
    valid("server.listen = \"[::1]:7710\"", &[]);
}

#[test]
fn secrets_come_from_files() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(&file, "hunter2\n").expect("written");
    let path = file.path().display().to_string();
    let config = valid(&format!("server.token_file = \"{path}\""), &[]);
    assert_eq!(config.server.token, Some(Secret::new("hunter2")));
    // The environment's secret replaces the file's, whichever form that has.
    let config = valid("server.token_file = \"/no/such\"", &[("LOGTIER_SERVER__TOKEN", "0042")]);
    assert_eq!(config.server.token, Some(Secret::new("0042")));
    let config = valid("server.token = \"a\"", &[("LOGTIER_SERVER__TOKEN_FILE", &path)]);
    assert_eq!(config.server.token, Some(Secret::new("hunter2")));

    insta::assert_snapshot!(refused("[server]\ntoken = \"hunter2\"\ntoken_file = \"/etc/token\""), @r#"
    logtier.toml:3: token_file = "/etc/token"
      both token and token_file are set
      help: remove one of them
    "#);
    insta::assert_snapshot!(refused("[server]\ntoken_file = \"/no/such\""), @r#"
    logtier.toml:2: token_file = "/no/such"
      cannot read /no/such: No such file or directory (os error 2)
    "#);
}

#[test]
fn no_report_shows_a_password() {
    let texts = [
        "hot = { url = \"mysql://u:hunter2@db\", shards = 3 }",
        "hot.url = \"mysql://u:hunter2\"",
        "hot.url = \"mysql://u:hunt#er2@db/x\"",
        "hot.url = \"http://u:hunter2@db/x\"",
        "hot.password = \"hunter2\"\nhot.url = \"mysql://u:hunter2@db/x\"",
        "cold.url = \"s3://key:hunter2@bucket\"",
        "cold.endpoint = \"https://key:hunter2@host\"\ncold.url = \"s3://b\"",
        "server.token = [\"hunter2\"]",
        "server = { token = \"hunter2\", listn = 1 }",
        "server = 1 token = \"hunter2\"",
        "server.token = \"\"\"\nhunter2 = \\z\n\"\"\"",
    ];
    for text in texts {
        let report = refused(text);
        assert!(!report.contains("hunter2") && !report.contains("er2@"), "{text}\n{report}");
    }
    let report = refused_with("", &[("LOGTIER_HOT__URL", "mysql://u:hunter2@db"), ("LOGTIER_SERVER__TOKN", "hunter2")]);
    assert!(!report.contains("hunter2"), "{report}");
    let config = valid(
        "hot.url = \"mysql://u:hunter2@db/x\"\ncold.url = \"s3://b\"",
        &[("AWS_ACCESS_KEY_ID", "k"), ("AWS_SECRET_ACCESS_KEY", "hunter2"), ("LOGTIER_SERVER__TOKEN", "hunter2")],
    );
    assert!(!format!("{config:#?}").contains("hunter2"));
    assert_eq!(config.hot.servers[0].url.expose(), "mysql://u:hunter2@db/x");
}

#[test]
fn the_environment_wins_and_its_mistakes_name_the_variable() {
    let config = valid(
        "data_dir = \"/a\"\n[hot]\nshards = 4",
        &[
            ("LOGTIER_DATA_DIR", "/b"),
            ("LOGTIER_HOT__SHARDS", "8"),
            ("LOGTIER_LOG", "debug"),
            ("LOGTIER_LOG__FORMAT", "json"),
            ("LOGTIER_PORT_7710_TCP", "tcp://10.0.0.1:7710"),
            ("LOGTIER_TEST_A__B", "x"),
        ],
    );
    assert_eq!((config.data_dir.to_str(), config.hot.shards), (Some("/b"), 8));
    assert_eq!((config.log.level.as_str(), config.log.format), ("debug", LogFormat::Json));
    insta::assert_snapshot!(
        refused_with("", &[("LOGTIER_HOT__SHRDS", "8"), ("LOGTIER_ARCHIV__SCHEDULE", "x"), ("LOGTIER_COLD__SHARED", "yes")]),
        @r#"
    environment: LOGTIER_ARCHIV__SCHEDULE
      unknown setting "archiv"
      help: did you mean "archive"?
    environment: LOGTIER_COLD__SHARED=yes
      invalid type: string "yes", expected true or false without quotes
    environment: LOGTIER_HOT__SHRDS
      unknown setting "shrds"
      help: did you mean "shards"?
    "#
    );
    insta::assert_snapshot!(refused_with("", &[("LOGTIER_HOT__SHARDS", "12"), ("LOGTIER_ARCHIVE__MAX_DELAY", "2")]), @r#"
    environment: LOGTIER_ARCHIVE__MAX_DELAY=2
      "2" is no span of time
      help: write a whole number and one of ms, s, m, h, d, w, y, as in "90s", "12h", "3d"
    environment: LOGTIER_HOT__SHARDS=12
      12 is no power of two
      help: write 1, 2, 4 … 256, for example 16
    "#);
    insta::assert_snapshot!(
        refused_with("[[hot.server]]\nurl = \"sqlite:a\"", &[("LOGTIER_HOT__SERVER__0__URL", "sqlite:b")]),
        @r#"
    environment: LOGTIER_HOT__SERVER__0__URL=sqlite:b
      server is no table, so a variable cannot set a part of it
      help: lists such as hot.server and retention.rule can only stand in the file
    "#
    );
}

#[test]
fn shards_are_held_once() {
    let check = |hot: &str| {
        let text = format!("cold.url = \"s3://b\"\nhot.shards = 16\n{hot}");
        Config::from_toml(&text, "logtier.toml", &Env::new()).map(|config| {
            let show = |server: &HotServer| format!("{} {:?}", server.url, server.shards);
            config.hot.servers.iter().map(show).collect::<Vec<_>>().join(", ")
        })
    };
    let server = |n: u32, shards: &str| format!("[[hot.server]]\nurl = \"mysql://db{n}/x\"\nshards = \"{shards}\"\n");
    let refused = |hot: &str| check(hot).expect_err("refused").to_string();
    let rest = "hot.url = \"mysql://db/x\"\n".to_owned();
    assert_eq!(check(&(rest.clone() + &server(1, "8-15"))).as_deref(), Ok("mysql://db/x 0..8, mysql://db1/x 8..16"));
    assert_eq!(check(&(server(2, "1-15") + &server(1, "0"))).as_deref(), Ok("mysql://db1/x 0..1, mysql://db2/x 1..16"));
    insta::assert_snapshot!(refused(&server(1, "8-14")), @r#"
    logtier.toml:3: [[hot.server]]
      no server holds the shards 0-7, 15
      help: give them to a [[hot.server]], or set hot.url, which takes the shards that are left
    "#);
    insta::assert_snapshot!(refused(&(server(1, "0-8") + &server(2, "8-15"))), @r#"
    logtier.toml:3: [[hot.server]]
      shard 8 is given to two servers
    "#);
    insta::assert_snapshot!(refused(&(rest.clone() + &server(1, "0-15"))), @r#"
    logtier.toml:3: hot.url = "mysql://db/x"
      the servers of [[hot.server]] hold all shards, none is left for hot.url
      help: remove hot.url, or a range
    "#);
    insta::assert_snapshot!(refused(&(rest.clone() + &server(1, "4-7"))), @r#"
    logtier.toml:3: hot.url = "mysql://db/x"
      the shards left for hot.url are several ranges, 0-3, 8-15
      help: a server holds one range: add a [[hot.server]]
    "#);
    insta::assert_snapshot!(refused(&(server(1, "0-7") + &server(1, "8-15"))), @r#"
    logtier.toml:3: [[hot.server]]
      mysql://db1/x is named twice
      help: a server holds one range of shards
    "#);
    insta::assert_snapshot!(refused(&server(1, "0-16")), @r#"
    logtier.toml:5: shards = "0-16"
      "0-16" goes beyond the last shard
      help: shards are 0 to 15
    "#);
}

#[test]
fn stores() {
    let cold = |text: &str, variables: &[(&str, &str)]| {
        valid(&format!("hot.url = \"mysql://db/x\"\n[cold]\nshared = true\n{text}"), variables).cold
    };
    let keys = [
        ("AWS_ACCESS_KEY_ID", "aws"),
        ("AWS_SECRET_ACCESS_KEY", "s"),
        ("OSS_ACCESS_KEY_ID", "oss"),
        ("OSS_ACCESS_KEY_SECRET", "o"),
        ("AWS_REGION", "eu"),
        ("AWS_ENDPOINT_URL", "http://minio:9000"),
    ];
    let s3 = cold("url = \"s3://bucket/a/b\"", &keys);
    assert_eq!((s3.access_key_id.as_deref(), s3.region.as_deref()), (Some("aws"), Some("eu")));
    assert!(s3.allow_http && !s3.virtual_hosted_style && s3.folder().is_none());
    let oss = cold("url = \"oss://bucket/a\"\nendpoint = \"https://oss.example\"\nregion = \"cn\"", &keys);
    assert_eq!((oss.access_key_id.as_deref(), oss.region.as_deref()), (Some("oss"), Some("cn")));
    assert!(!oss.allow_http && oss.virtual_hosted_style);
    assert_eq!(oss.secret_access_key, Some(Secret::new("o")));
    assert_eq!(cold("url = \"abfs://container@account.dfs.core.windows.net/a\"", &[]).url.username(), "container");
    assert_eq!(cold("url = \"relative/folder\"", &[]).folder(), std::path::absolute("relative/folder").ok());
    assert_eq!(cold("url = \"/mnt/a b%\"", &[]).folder(), Some("/mnt/a b%".into()));

    let refused = |cold: &str| refused(&format!("hot.url = \"mysql://db/x\"\n[cold]\n{cold}"));
    insta::assert_snapshot!(refused("url = \"s4://bucket\""), @r#"
    logtier.toml:3: url = "s4://bucket"
      unknown kind of store "s4"
      help: did you mean "s3"?
    "#);
    insta::assert_snapshot!(refused("url = \"oss://bucket\""), @r#"
    logtier.toml:3: url = "oss://bucket"
      oss needs an endpoint
      help: set cold.endpoint = "https://oss-cn-hangzhou.aliyuncs.com"
    "#);
    insta::assert_snapshot!(refused("url = \"s3:///prefix\""), @r#"
    logtier.toml:3: url = "s3:///prefix"
      no bucket in the URL
      help: write "s3://bucket/prefix", oss, gs, az, or "file:///folder"
    "#);
    insta::assert_snapshot!(refused("url = \"file://mnt/logs\""), @r#"
    logtier.toml:3: url = "file://mnt/logs"
      "mnt" stands where a host would
      help: a folder is written with three slashes, "file:///folder"
    "#);
    insta::assert_snapshot!(refused("url = \"s3://b\"\nendpoint = \"minio:9000\"\naccess_key_id = \"a\""), @r#"
    logtier.toml:4: endpoint = "minio:9000"
      an endpoint is an http or https URL without credentials
      help: write "https://s3.eu-central-1.amazonaws.com", or http:// for a server in your own network
    logtier.toml:5: access_key_id = "a"
      only one of access_key_id and secret_access_key is set
      help: set both, or none to use the machine's own identity
    "#);
}

proptest::proptest! {
    #[test]
    fn no_text_panics(text in "([\\[\\]{}=\".,#\n]|\\PC|hot|url|token|rule|retention|9){0,40}", value in "\\PC*") {
        let _ = Config::from_toml(&text, "f", &env(&[("LOGTIER_HOT__URL", &value), ("LOGTIER_X__Y", &text)]));
        let _ = Config::from_toml(&format!("hot.url = '{text}'\ncold.url = '{text}'"), "f", &Env::new());
        let _ = value.parse::<DbUrl>();
    }
}

#[test]
fn protocols_are_checked() {
    insta::assert_snapshot!(refused("[protocol.powerjop]"), @r#"
    logtier.toml:1: [protocol.powerjop]
      unknown setting "powerjop"
      help: did you mean "powerjob"?
    "#);
    let text = r#"
[protocol.powerjob]
listen = "0.0.0.0:7730"
server = "http://powerjob:10010/server"
timezone = "Asia/Shanghia"
[protocol.powerjob_s3]
bucket = "Power Job"
access_key = "ak"
"#;
    insta::assert_snapshot!(refused(text), @r#"
    logtier.toml:3: listen = "0.0.0.0:7730"
      on 0.0.0.0:7730 everyone could write and read logs of this app
      help: PowerJob's workers send no password: set allow_anonymous = true and close the port to all others
    logtier.toml:4: server = "http://powerjob:10010/server"
      "http://powerjob:10010/server" is more or less than a scheme, a host and a port
      help: write "http://host:port"
    logtier.toml:5: timezone = "Asia/Shanghia"
      unknown time zone "Asia/Shanghia"
      help: did you mean "Asia/Shanghai"?
    logtier.toml:6: [protocol.powerjob_s3]
      access_key or secret_key is missing
      help: set both, and the same as oms.storage.dfs.minio.accessKey and secretKey of PowerJob
    logtier.toml:7: bucket = "Power Job"
      "Power Job" is no name of an S3 bucket
      help: 3 to 63 lower-case letters, digits, "-" and "."
    "#);
}

#[test]
fn purging_is_told_when_to_wait() {
    let text = r#"
cold.url = "s3://b"
hot.url = "mysql://u:geheim@db/x"
hot.replicas = " mysql://r1/x  mysql://v@r2/x "
purge.rest = "20%"
"#;
    let config = valid(text, &[]);
    let [server] = config.hot.servers.as_slice() else { panic!("{:?}", config.hot) };
    assert_eq!(format!("{:?}", server.replicas), "[mysql://r1/x, mysql://v@r2/x]");
    assert_eq!((config.purge.rest, config.purge.window), (20, None));
    insta::assert_snapshot!(refused(
        r#"
[hot]
replicas = "sqlite:/a/b"
[purge]
window = "1-5"
max_lock_waits = -1
max_replica_lag = "0s"
"#
    ), @r#"
    logtier.toml:3: replicas = "sqlite:/a/b"
      replicas of no server: hot.url is not set
    logtier.toml:5: window = "1-5"
      "1-5" is no window
      help: write it as in "01:00-05:00"
    logtier.toml:6: max_lock_waits = -1
      -1 is not between 0 and 1000000
    logtier.toml:7: max_replica_lag = "0s"
      0s is not between 1s and 1d
    "#);
    let sqlite = "cold.url = \"s3://b\"\nhot.url = \"mysql://db/x\"\nhot.replicas = \"sqlite:/a/b\"\n";
    assert!(refused(sqlite).contains("an SQLite file has no replica"), "{}", refused(sqlite));
}
