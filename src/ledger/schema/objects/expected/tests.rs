use super::*;

fn created(sql: &str) -> All {
    let mut all = All::new();
    created_by(sql, sql, &mut all);
    all
}

fn of<'a>(all: &'a All, name: &str) -> &'a Definition {
    let found = all.iter().find(|(key, _)| key.name == name);
    found.expect(name).1
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn objects_of_migrations_are_read_in_any_spelling() {
    let sql = "CREATE TABLE revertd.a (\n    id bigint PRIMARY KEY,\n    b uuid NOT NULL \
        REFERENCES revertd.b,\n\x20   c text UNIQUE, -- not NOT NULL, is it\n    CONSTRAINT a_c \
        CHECK (c <> 'b')\n);\nCREATE TABLE revertd.b (\n    x int,\n    y int,\n    PRIMARY KEY \
        (x, y),\n    CONSTRAINT b_gone CHECK (true)\n);\nALTER TABLE revertd.b DROP CONSTRAINT \
        b_gone;\nCREATE UNIQUE INDEX a_once ON revertd.a (c, b) WHERE c IS NOT NULL;\nCREATE \
        INDEX a_odd ON revertd.a (lower(c)) WHERE c IN ('x');\nCREATE CONSTRAINT TRIGGER a_chain \
        AFTER INSERT OR UPDATE ON\n revertd.a FOR EACH ROW WHEN (NEW.id > 0) EXECUTE FUNCTION \
        revertd.f();\nCREATE FUNCTION revertd.f() RETURNS trigger AS $fn$\nBEGIN\n  -- So.\n  \
        RETURN NULL;\nEND\n$fn$;";
    let all = created(sql);
    let keys: Vec<_> = all.keys().map(ToString::to_string).collect();
    assert_eq!(
        keys,
        [
            "column b of revertd.a",
            "column id of revertd.a",
            "constraint a_b_fkey of revertd.a",
            "constraint a_c of revertd.a",
            "constraint a_c_key of revertd.a",
            "constraint a_pkey of revertd.a",
            "constraint b_pkey of revertd.b",
            "function revertd.f",
            "index a_odd of revertd.a",
            "index a_once of revertd.a",
            "trigger a_chain of revertd.a",
        ]
    );
    assert_eq!(of(&all, "a_c").columns, Some(names(&["c"])));
    assert_eq!(of(&all, "b_pkey").columns, Some(names(&["x", "y"])));
    assert_eq!(of(&all, "b_pkey").form.as_deref(), Some("p"));
    let once = of(&all, "a_once");
    assert_eq!(once.columns, Some(names(&["b", "c"])));
    assert_eq!(once.text.as_deref(), Some("cisnotnull"));
    assert_eq!(plain("index", "(c IS NOT NULL)"), "cisnotnull");
    assert_eq!(
        (&of(&all, "a_odd").columns, &of(&all, "a_odd").text),
        (&None, &None)
    );
    let chain = of(&all, "a_chain");
    assert_eq!(chain.form.as_deref(), Some("21"));
    assert_eq!(chain.text.as_deref(), Some("new.id>0"));
    assert_eq!(
        of(&all, "f").text.as_deref(),
        Some("BEGIN RETURN NULL; END")
    );
}

#[test]
fn a_redefined_object_is_compared_with_the_last() {
    let sql = "CREATE FUNCTION revertd.f() RETURNS int LANGUAGE sql AS 'SELECT 1';\n\
        CREATE OR REPLACE FUNCTION revertd.f() RETURNS text LANGUAGE sql AS\n 'SELECT ''two''';";
    let all = created(sql);
    assert_eq!(all.len(), 1);
    assert_eq!(of(&all, "f").text.as_deref(), Some("SELECT 'two'"));
}

#[test]
fn a_replaced_constraint_is_expected() {
    let sql = "CREATE TABLE revertd.a (\n    b text,\n    CONSTRAINT a_b CHECK (b = 'x')\n);\n\
        ALTER TABLE revertd.a\n    ADD COLUMN c integer,\n    ADD COLUMN IF NOT EXISTS d text;\n\
        ALTER TABLE revertd.a DROP CONSTRAINT a_b;\n\
        ALTER TABLE revertd.a ADD CONSTRAINT a_b CHECK (b ~ '^c$' OR d IS NOT NULL);\n\
        ALTER TABLE revertd.a ADD CONSTRAINT a_c CHECK (\n    c > 0);\n\
        ALTER TABLE revertd.a DROP CONSTRAINT a_c;";
    let all = created(sql);
    assert_eq!(all.len(), 1, "{all:?}");
    let other = of(&all, "a_b");
    assert_eq!(other.columns, Some(names(&["b", "d"])));
    assert_eq!(other.form.as_deref(), Some("c"));
    let condition = other.condition.as_deref();
    assert_eq!(condition, Some("(b ~ '^c$' OR d IS NOT NULL)"));
}

#[test]
fn every_function_body_and_condition_is_read() {
    let unread = |(key, definition): &(&Key, &Definition)| {
        let by_columns = ["constraint", "index", "trigger"].contains(&key.kind);
        let by_text = ["index", "trigger", "function"].contains(&key.kind);
        by_columns && definition.columns.is_none() || by_text && definition.text.is_none()
    };
    let unread = EXPECTED.iter().filter(unread);
    let unread: Vec<_> = unread.map(|(key, _)| key.to_string()).collect();
    // An aggregate has no body.
    assert_eq!(unread, ["function revertd.taken"]);
    let ids = of(&EXPECTED, "uuid_v5");
    let made = |from: &str| format!("SELECT {from}(namespace, name)");
    assert!(ids.reads("function", &made("\"a b\".uuid_generate_v5")));
    assert!(!ids.reads("function", &made("public.uuid_generate_v3")));
    let within = of(&EXPECTED, "outcomes_within_usage");
    let columns = names(&["amount", "refusal", "reverted_before", "usage_amount"]);
    assert_eq!(within.columns, Some(columns));
    let condition = of(&EXPECTED, "outcomes_amount_positive")
        .condition
        .as_deref();
    assert_eq!(condition, Some("(amount > 0)"));
}
