//! No output shows a password.

use super::*;

#[test]
fn secrets_are_never_shown() {
    for url in [
        "postgres://me:hunter2@db/x",
        "postgres://me:hunter2@db1:1,db2:2/x?target_session_attrs=read-write",
        "postgres://me@db/x?password=hunter2",
        "postgres://me:1/hunter2@db/x",
        "host=db user=me password=hunter2 dbname=x",
        "host=db user=me password='hunter2 and more' dbname=x",
        "host=db user=me password = hunter2",
    ] {
        let settings = load(&[
            ("REVERTD_DATABASE__URL", url),
            ("REVERTD_AMQP__URL", "amqp://me:hunter2@mq/%2f"),
        ])
        .expect("valid");
        let shown = format!("{}\n{settings:?}", settings.to_toml());
        assert!(!shown.contains("hunter2"), "{url}: {shown}");
    }
    let message = refused(&[("REVERTD_AMQP__URL", "amqp://me:hunter2@:5672")]);
    assert!(!message.contains("hunter2"), "{message}");
}

#[test]
fn an_invalid_address_does_not_show_its_password() {
    for address in [
        "host=db\nuser=x\npassword=hunter2",
        "host=db\tuser=x\tpassword=hunter2",
        "host=db password=hunter2\\ user=hunter2",
        "host=db password='a hunter2' user=x",
        "postgres://u:12#hunter2@h/d",
        "postgres://u:?hunter2@h/d",
        "postgres://u:a/hunter2@h/d",
        "postgres://u:hunter2@one:1,two:2/d",
    ] {
        let environment = [("REVERTD_DATABASE__URL".to_owned(), address.to_owned())];
        let settings = Settings::load_from(None, environment).expect("accepted");
        for shown in [
            settings.to_toml(),
            format!("{:?}", settings.database.url),
            settings.database.url.to_string(),
        ] {
            assert!(!shown.contains("hunter2"), "{address}: {shown}");
        }
    }
    let error = load_file("[amqp]\nurl = \"amqp://worker:hunter2@host\n").expect_err("not TOML");
    assert!(
        error.contains("line 2") && !error.contains("hunter2"),
        "{error}"
    );
}
