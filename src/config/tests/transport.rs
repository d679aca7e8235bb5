//! Passwords from files, certificates, and what an address says of TLS.

use super::*;

/// A folder, and the files in it, one for each text.
fn files<const N: usize>(texts: [&str; N]) -> (tempfile::TempDir, [String; N]) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut number = 0;
    let paths = texts.map(|text| {
        number += 1;
        let path = folder.path().join(number.to_string());
        std::fs::write(&path, text).expect("written");
        path.display().to_string()
    });
    (folder, paths)
}

#[test]
fn a_password_file_holds_the_password_of_the_address() {
    let amqp = ("REVERTD_AMQP__URL", "amqp://me@mq/%2f");
    for (text, password) in [
        ("hunter2", "hunter2"),
        ("hunter2\n", "hunter2"),
        ("hunter2\r\n", "hunter2"),
        ("hunter2 ", "hunter2%20"),
        ("%41@/:?#", "%2541%40%2F%3A%3F%23"),
    ] {
        let (_folder, [path]) = files([text]);
        let amqp_file = ("REVERTD_AMQP__PASSWORD_FILE", path.as_str());
        let database_file = ("REVERTD_DATABASE__PASSWORD_FILE", path.as_str());
        let settings = load(&[amqp, amqp_file, database_file]).expect("valid");
        let url = settings.amqp.url.iter().next().expect("one");
        let expected = format!("amqp://me:{password}@mq/%2f?heartbeat=15");
        assert_eq!(url.secret(), expected);
        let plain = text.trim_end_matches(['\r', '\n']);
        assert_eq!(settings.database.url.password(), Some(plain));
        let shown = format!("{}\n{settings:?}", settings.to_toml());
        assert!(!shown.contains(text.trim_end()), "{shown}");
        assert!(shown.contains(&path), "{shown}");
        // Who sets nothing but the file means the built-in user.
        let settings = load(&[amqp_file]).expect("valid");
        let url = settings.amqp.url.iter().next().expect("one");
        let expected = format!("amqp://guest:{password}@localhost:5672/%2f?heartbeat=15");
        assert_eq!(url.secret(), expected);
    }
}

#[test]
fn an_invalid_password_file_stops_the_start() {
    let (folder, [empty, blank, lines]) = files(["", "\n", "one\ntwo\n"]);
    let missing = folder.path().join("missing").display().to_string();
    for (path, said) in [
        (missing.as_str(), "cannot read"),
        (empty.as_str(), "is empty"),
        (blank.as_str(), "an empty line"),
        (lines.as_str(), "more than one line"),
        ("", "must be the path of a file"),
    ] {
        for section in ["AMQP", "DATABASE"] {
            let message = refused(&[(&format!("REVERTD_{section}__PASSWORD_FILE"), path)]);
            let key = format!("{}.password_file: ", section.to_lowercase());
            assert!(
                message.contains(&key) && message.contains(said),
                "{message}"
            );
            assert!(!message.contains("two"), "{message}");
        }
    }
}

/// Keys that are set, and what is said of it.
type Contradiction<'a> = (&'a [(&'a str, &'a str)], &'a str);

fn are_refused(contradictions: &[Contradiction<'_>]) {
    for (set, said) in contradictions {
        let names: Vec<_> = set
            .iter()
            .map(|(key, _)| format!("REVERTD_{key}"))
            .collect();
        let values = set.iter().map(|(_, value)| *value);
        let set: Vec<_> = names.iter().map(String::as_str).zip(values).collect();
        let message = refused(&set);
        assert!(message.contains(said), "{set:?}: {message}");
    }
}

#[test]
fn contradicting_broker_settings_stop_the_start() {
    let (_folder, [file]) = files(["x"]);
    let file = file.as_str();
    let external = "amqps://me@mq/%2f?auth_mechanism=external";
    let (password, ca) = (("AMQP__PASSWORD_FILE", file), ("AMQP__CA_FILE", file));
    let (cert, key) = (("AMQP__CERT_FILE", file), ("AMQP__KEY_FILE", file));
    let url = |url| ("AMQP__URL", url);
    are_refused(&[
        (
            &[url("amqp://me:a@mq"), password],
            "amqp.password_file is set, but amqp.url has a password",
        ),
        (
            &[ca],
            "amqp.ca_file is set, but amqp.url begins with amqp://",
        ),
        (&[cert, key], "amqp.cert_file is set, but amqp.url begins"),
        (
            &[url("amqps://mq"), cert],
            "amqp.cert_file is set, but amqp.key_file is not",
        ),
        (
            &[url("amqps://mq"), key],
            "amqp.key_file is set, but amqp.cert_file is not",
        ),
        (&[url(external)], "no certificate to show"),
        (
            &[url("amqp://me@mq/%2f?auth_mechanism=EXTERNAL")],
            "write amqps://",
        ),
        (
            &[url("amqps://mq/%2f?auth_mechanism=external"), cert, key],
            "but no user",
        ),
        (&[url(external), cert, key, password], "sends no password"),
        (
            &[url("amqp://mq/%2f?auth_mechanism=magic")],
            "auth_mechanism=magic; it must be one of",
        ),
        (&[url("amqps://one,amqp://two")], "some are not"),
        (&[url("amqps://mq?cacertfile=/x")], "has cacertfile="),
    ]);
}

#[test]
fn contradicting_database_settings_stop_the_start() {
    let (_folder, [file, other]) = files(["x", "x"]);
    let file = file.as_str();
    let root = format!("postgres://me@db/x?sslmode=verify-full&sslrootcert={other}");
    let system = "postgres://me@db/x?sslmode=verify-full&sslrootcert=system";
    let no_key = format!("postgres://me@db/x?sslmode=verify-full&sslcert={file}");
    let no_mode = format!("host=db sslrootcert = '{file}'");
    let (password, ca) = (
        ("DATABASE__PASSWORD_FILE", file),
        ("DATABASE__CA_FILE", file),
    );
    let (cert, key) = (("DATABASE__CERT_FILE", file), ("DATABASE__KEY_FILE", file));
    let url = |url| ("DATABASE__URL", url);
    are_refused(&[
        (
            &[url("postgres://me:a@db/x"), password],
            "database.password_file is set, but",
        ),
        (
            &[url("postgres://me@db/x?password=a"), password],
            "database.password_file is set, but",
        ),
        (
            &[url("host=db password = a"), password],
            "database.password_file is set, but",
        ),
        (&[ca], "database: ca_file or sslrootcert is set, but"),
        (
            &[url("postgres://db/x?sslmode=prefer"), ca],
            "add sslmode=verify-full",
        ),
        (&[url(&no_mode)], "add sslmode=verify-full"),
        (
            &[url("postgres://db/x?sslrootcert=system")],
            "add sslmode=verify-full",
        ),
        (&[cert, key], "database: cert_file or sslcert is set, but"),
        (
            &[url(&no_key)],
            "database.cert_file is set, but database.key_file is not",
        ),
        (&[url(&root), ca], "but database.url says sslrootcert="),
        (&[url(system), ca], "sslrootcert=system"),
        (
            &[url("postgres://db/x?sslmode=allow")],
            "has sslmode=allow; it must be one of",
        ),
        (
            &[url("postgres://db/x?sslmode=require&sslmode=disable")],
            "says sslmode twice",
        ),
        (
            &[url("postgres://db/x?sslmode=require&sslrootcert=/nowhere")],
            "sslrootcert: cannot read /nowhere",
        ),
    ]);
}

#[test]
fn sslmode_is_read_from_the_database_address() {
    let (_folder, [file]) = files(["x"]);
    for (given, rest, encrypts) in [
        ("postgres://me@db/x", "postgres://me@db/x", false),
        (
            "postgres://me@db/x?sslmode=disable",
            "postgres://me@db/x",
            false,
        ),
        (
            "postgres://me@db/x?sslmode=prefer&options=-c%20a",
            "postgres://me@db/x?options=-c%20a",
            false,
        ),
        (
            "postgres://me@db/x?sslmode=require",
            "postgres://me@db/x",
            true,
        ),
        (
            "postgres://me@db/x?a=1&sslmode=verify%2dca&b=2",
            "postgres://me@db/x?a=1&b=2",
            true,
        ),
        (
            "postgresql://me:p?sslmode=x@a:1,b:2/x?b=2&sslmode=verify-full",
            "postgresql://me:p?sslmode=x@a:1,b:2/x?b=2",
            true,
        ),
        (
            "postgres://db?sslrootcert=system&sslmode=verify-full",
            "postgres://db",
            true,
        ),
        (
            "host=db sslmode=verify-full user=me",
            "host=db user=me",
            true,
        ),
        (
            "host=db password='a sslmode=require' user=me",
            "host=db password='a sslmode=require' user=me",
            false,
        ),
        (
            r"host=db password=a\ sslmode=require sslmode = 'verify\-full' user=me",
            r"host=db password=a\ sslmode=require user=me",
            true,
        ),
        ("host=db dbname", "host=db dbname", false),
    ] {
        let settings = load(&[("REVERTD_DATABASE__URL", given)]).expect("valid");
        let url = &settings.database.url;
        assert_eq!(
            (url.secret(), url.tls().is_some()),
            (rest, encrypts),
            "{given}"
        );
    }
    let query = format!("sslmode=verify-full&sslrootcert={file}&sslcert={file}&sslkey={file}");
    let url = format!("postgres://me@db/x?{query}");
    let settings = load(&[
        ("REVERTD_DATABASE__URL", &url),
        ("REVERTD_DATABASE__CA_FILE", &file),
    ]);
    let settings = settings.expect("the same file by both names");
    let tls = settings.database.url.tls().expect("encrypted");
    assert_eq!(tls.ca.as_ref().map(HeldFile::path), Some(file.as_str()));
    assert_eq!(
        tls.identity.as_ref().map(|own| own.key.path()),
        Some(file.as_str())
    );
}

#[test]
fn amqps_has_its_own_default_port() {
    for (given, port, encrypted) in [
        ("amqps://mq/%2f", 5671, true),
        ("amqps://mq:5672/%2f", 5672, true),
        ("amqp://mq/%2f", 5672, false),
        ("amqps://one,amqps://two", 5671, true),
    ] {
        let settings = load(&[("REVERTD_AMQP__URL", given)]).expect("valid");
        for url in settings.amqp.url.iter() {
            assert_eq!((url.address().1, url.tls().is_some()), (port, encrypted));
        }
    }
}

#[test]
fn the_management_api_uses_the_ca_and_hides_its_login() {
    let (_folder, [ca]) = files(["pem"]);
    let file = ("REVERTD_AMQP__CA_FILE", ca.as_str());
    let url = |url| ("REVERTD_AMQP__MANAGEMENT_URL", url);
    let settings = load(&[file, url("https://me:hunter2@mq")]).expect("valid");
    let management = settings.amqp.management_url.clone().expect("set");
    let trusted = management.tls().and_then(|files| files.ca.as_ref());
    assert_eq!(trusted.map(HeldFile::path), Some(ca.as_str()));
    let shown = format!("{}\n{settings:?}", settings.to_toml());
    assert!(shown.contains("https://me:***@mq"), "{shown}");
    assert!(!shown.contains("hunter2"), "{shown}");
    // Over http there is nothing that it would be for.
    let error = refused(&[file, url("http://mq")]);
    assert!(error.contains("amqp.ca_file"), "{error}");
    assert!(refused(&[url("mq:15672")]).contains("amqp.management_url"));
}
