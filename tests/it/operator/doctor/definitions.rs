//! Objects with the right name and another definition: constraints, indexes, triggers, functions
//! and columns; and unlogged tables, which a crash empties.

use super::report::doctor;
use crate::operator::startup::refused;
use crate::support::*;

/// The changes, and the findings about them.
const PLANTS: [(&str, &str, &str); 16] = [
    (
        "DROP INDEX revertd.outcomes_revert_no;
         CREATE INDEX outcomes_revert_no ON revertd.outcomes (usage_id, revert_no) WHERE refusal \
         IS NULL",
        "index outcomes_revert_no of revertd.outcomes differs from the migrations' definition",
        "migrations/",
    ),
    (
        "DROP INDEX revertd.grants_org;
         CREATE UNIQUE INDEX grants_org ON revertd.grants (client, org_id, granted_at) WHERE \
         org_id IS NOT NULL",
        "index grants_org of revertd.grants differs from the migrations' definition",
        "migrations/",
    ),
    (
        "DROP INDEX revertd.grants_every_org;
         CREATE UNIQUE INDEX grants_every_org ON revertd.grants (client) WHERE org_id IS NOT NULL",
        "index grants_every_org of revertd.grants differs from the migrations' definition",
        "migrations/",
    ),
    (
        "CREATE OR REPLACE FUNCTION revertd.check_chain() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN RETURN NULL; END $$",
        "function revertd.check_chain differs from the migrations' definition",
        "CREATE OR REPLACE",
    ),
    (
        "CREATE OR REPLACE FUNCTION revertd.take(taken bigint, amount bigint, available bigint, \
            once boolean)
         RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT taken + amount'",
        "function revertd.take differs from the migrations' definition",
        "CREATE OR REPLACE",
    ),
    (
        "CREATE OR REPLACE FUNCTION revertd.give_way() RETURNS boolean LANGUAGE sql VOLATILE AS \
            'SELECT true'",
        "function revertd.give_way differs from the migrations' definition",
        "CREATE OR REPLACE",
    ),
    (
        "CREATE OR REPLACE FUNCTION revertd.entry_id(usage_id uuid, n bigint, account_id uuid) \
            RETURNS uuid
         LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS 'SELECT gen_random_uuid()'",
        "function revertd.entry_id differs from the migrations' definition",
        "CREATE OR REPLACE",
    ),
    (
        "CREATE OR REPLACE FUNCTION revertd.uuid_v5(namespace uuid, name text) RETURNS uuid
         LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS 'SELECT namespace'",
        "function revertd.uuid_v5 differs from the migrations' definition",
        "CREATE OR REPLACE",
    ),
    (
        "CREATE OR REPLACE FUNCTION revertd.platform_leg(customer_leg uuid) RETURNS uuid
         LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS 'SELECT customer_leg'",
        "function revertd.platform_leg differs from the migrations' definition",
        "CREATE OR REPLACE",
    ),
    (
        "ALTER TABLE revertd.outcomes ALTER COLUMN amount DROP NOT NULL",
        "column amount of revertd.outcomes may be NULL",
        "ALTER TABLE revertd.outcomes ALTER COLUMN amount SET NOT NULL;",
    ),
    (
        "ALTER TABLE revertd.outcomes DROP CONSTRAINT outcomes_within_usage;
         ALTER TABLE revertd.outcomes ADD CONSTRAINT outcomes_within_usage CHECK (true)",
        "outcomes_within_usage of revertd.outcomes differs from the migrations' definition",
        "migrations/",
    ),
    (
        "ALTER TABLE revertd.outcomes DROP CONSTRAINT outcomes_once;
         ALTER TABLE revertd.outcomes ADD CONSTRAINT outcomes_once CHECK (refusal IS NOT NULL OR \
         cumulative
             OR coalesce(revert_no >= 0 AND reverted_before >= 0, false))",
        "constraint outcomes_once of revertd.outcomes differs from the migrations' definition",
        "migrations/",
    ),
    (
        "DROP TRIGGER outcomes_chain ON revertd.outcomes;
         CREATE CONSTRAINT TRIGGER outcomes_chain AFTER INSERT OR UPDATE ON revertd.outcomes
         FOR EACH ROW WHEN (false) EXECUTE FUNCTION revertd.check_chain()",
        "trigger outcomes_chain of revertd.outcomes differs from the migrations' definition",
        "migrations/",
    ),
    (
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = \
            'revertd.outcomes_pkey'::regclass",
        "constraint outcomes_pkey of revertd.outcomes exists, but without effect",
        "REINDEX INDEX CONCURRENTLY revertd.outcomes_pkey;",
    ),
    (
        "ALTER TABLE revertd.grants SET UNLOGGED",
        "table revertd.grants is unlogged",
        "ALTER TABLE revertd.grants SET LOGGED;",
    ),
    (
        "ALTER TABLE billing_transactions SET UNLOGGED",
        "table public.billing_transactions is unlogged",
        "ALTER TABLE public.billing_transactions SET LOGGED;",
    ),
];

#[tokio::test]
async fn objects_with_the_right_name_are_compared() {
    let env = TestEnv::new().await;
    for (plant, _, _) in PLANTS {
        env.sql(plant).await;
    }
    let report = doctor(&env, &[]);
    for (_, seen, remedy) in PLANTS {
        let id = if seen.starts_with("table") {
            "database-unlogged"
        } else {
            "database-objects"
        };
        report.says(id, "error", seen, remedy);
    }
    assert_eq!(report.count("errors"), PLANTS.len() as u64, "{report:#?}");
    let key = "UPDATE pg_index SET indisvalid = false
               WHERE indrelid = 'billing_transactions'::regclass AND indisprimary";
    env.sql(key).await;
    let seen = "billing_transactions.id has no unique index";
    doctor(&env, &[]).says("database-frontier", "error", seen, "correct ledger.schema");
    env.teardown().await;
}

#[tokio::test]
async fn a_worker_does_not_start_with_a_changed_guard() {
    for (plant, said, _) in PLANTS {
        // Grants keep no row out of the outcomes, and one function is as another.
        let others = [
            "index grants",
            "revertd.take",
            "give_way",
            "platform_leg",
            "uuid_v5",
        ];
        if others.iter().any(|other| said.contains(other)) {
            continue;
        }
        let env = TestEnv::new().await;
        env.sql(plant).await;
        let log = refused(&env).await;
        assert!(
            log.contains("does not protect the ledger") && log.contains(said),
            "{said}: {log}"
        );
        env.teardown().await;
    }
}

#[tokio::test]
async fn objects_of_a_missing_migration_are_not_reported() {
    let env = TestEnv::new().await;
    let before =
        "DROP TABLE revertd.control; DELETE FROM revertd.schema_history WHERE name = 'control'";
    env.sql(before).await;
    let report = doctor(&env, &[]);
    assert_eq!(report.count("errors"), 0, "{report:#?}");
    report.says(
        "database-schema",
        "warning",
        "V4__control",
        "revertd migrate",
    );
    report.says(
        "database-objects",
        "skipped",
        "up to date",
        "revertd migrate",
    );
    env.teardown().await;
}

#[tokio::test]
async fn objects_replaced_by_a_later_release_are_accepted() {
    let env = TestEnv::new().await;
    let later = "INSERT INTO revertd.schema_history (version, name, applied_on, checksum)
                     VALUES (99, 'later', '2026-01-01T00:00:00Z', '1');
                 CREATE OR REPLACE FUNCTION revertd.give_way() RETURNS boolean LANGUAGE plpgsql \
                 VOLATILE AS
                     $$ BEGIN RAISE EXCEPTION 'wait' USING ERRCODE = 'serialization_failure'; END \
                     $$";
    env.sql(later).await;
    let report = doctor(&env, &[]);
    assert_eq!(report.count("errors"), 0, "{report:#?}");
    report.says("database-schema", "ok", "newer than this program's", "");
    env.start_worker().await.stop().await;
    env.teardown().await;
}
