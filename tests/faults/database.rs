//! A PostgreSQL that refuses, aborts or takes too long: no request is lost, and no attempt is
//! counted.

use std::path::PathBuf;
use std::process::Command;

use crate::instance::Instance;
use crate::support::audit::audit;
use crate::support::load::Load;
use crate::support::report::{full, report, seed};
use crate::support::{TestEnv, eventually};

fn size() -> usize {
    if full() { 6000 } else { 600 }
}

/// Makes every `every`-th statement that writes several entries fail, `times` times, each time with
/// the next of the SQLSTATEs. A request that is written alone is spared: if only its statement
/// fails, the failure is its own.
async fn trouble(env: &TestEnv, every: usize, times: usize, states: &[&str]) {
    let states = states.join("','");
    env.sql(&format!(
        "CREATE SEQUENCE public.statements;
             CREATE FUNCTION trouble() RETURNS trigger LANGUAGE plpgsql AS $$
             DECLARE
                 states text[] := ARRAY['{states}'];
                 n bigint;
             BEGIN
                 IF (SELECT count(*) FROM added) <= 2 THEN
                     RETURN NULL;
                 END IF;
                 n := nextval('public.statements');
                 IF n % {every} = 0 AND n / {every} <= {times} THEN
                     RAISE EXCEPTION 'forced'
                     USING ERRCODE = states[1 + n / {every} % array_length(states, 1)];
                 END IF;
                 RETURN NULL;
             END $$;
             CREATE TRIGGER trouble AFTER INSERT ON billing_transactions
             REFERENCING NEW TABLE AS added
             FOR EACH STATEMENT EXECUTE FUNCTION trouble();"
    ))
    .await;
}

/// A load through two workers whose statements fail for these causes.
async fn forced(fault: &str, every: usize, times: usize, states: &[&str]) {
    let mut env = TestEnv::new().await;
    env.set("WORKER__BATCH_MAX", "20");
    let load = Load::mixed(&env, seed(), size()).await;
    trouble(&env, every, times, states).await;
    let workers = vec![env.start_worker().await, env.start_worker().await];
    load.publish(&env).await;
    let count = audit(&env, &load, workers).await;
    let failed = env.count("SELECT last_value FROM public.statements").await
        / i64::try_from(every).expect("few");
    assert!(failed > 0, "some statements failed");
    report(
        fault,
        times.min(usize::try_from(failed).expect("positive")),
        count,
    );
    env.teardown().await;
}

#[tokio::test]
async fn serialization_failures_and_deadlocks_are_retried() {
    // Both legs of a statement count.
    forced(
        "database: serialization failures, deadlocks",
        3,
        10_000,
        &["40001", "40P01"],
    )
    .await;
}

#[tokio::test]
async fn a_failing_database_is_waited_for() {
    // Cancelled, shutting down, crashing, out of memory, of disk, of connections, read-only, an I/O
    // error.
    let states = [
        "57014", "57P01", "57P02", "53200", "53100", "53300", "25006", "58030",
    ];
    forced(
        "database: out of order for a while",
        9,
        if full() { 40 } else { 6 },
        &states,
    )
    .await;
}

/// A table that is locked for longer than a statement may take.
#[tokio::test]
async fn a_statement_timeout_pauses_the_pool() {
    let mut env = TestEnv::new().await;
    env.set("WORKER__BATCH_MAX", "50");
    let load = Load::mixed(&env, seed(), size()).await;
    let mut worker = env.start_worker().await;
    env.sql("BEGIN; LOCK TABLE billing_transactions IN SHARE MODE")
        .await;
    load.publish(&env).await;
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'revertd' \
                   AND wait_event_type = 'Lock' AND datname = current_database()";
    if full() {
        worker.logged("took too long").await;
    } else {
        // The server's own timer, set off early.
        eventually("it waits for the lock", async || {
            // Within a transaction, PostgreSQL repeats the statistics that it returned before.
            env.sql("SELECT pg_stat_clear_snapshot()").await;
            env.count(waiting).await > 0
        })
        .await;
        let cancel = format!(
            "SELECT pg_cancel_backend(pid) {}",
            &waiting["SELECT count(*) ".len()..]
        );
        env.sql(&cancel).await;
        worker.logged("took too long").await;
    }
    env.sql("COMMIT").await;
    let count = audit(&env, &load, vec![worker]).await;
    report("database: statement timeout", 1, count);
    env.teardown().await;
}

#[tokio::test]
async fn a_real_deadlock_is_resolved_and_retried() {
    let mut env = TestEnv::new().await;
    env.set("WORKER__BATCH_MAX", "200");
    env.set("WORKER__CONCURRENCY", "2");
    let load = Load::mixed(&env, seed(), size()).await;
    // A trigger that takes two locks in a random order for each entry.
    env.sql(
        "CREATE FUNCTION embrace() RETURNS trigger LANGUAGE plpgsql AS $$
             DECLARE first int := floor(random() * 2);
             BEGIN
                 PERFORM pg_advisory_xact_lock(first);
                 PERFORM pg_sleep(0.01);
                 PERFORM pg_advisory_xact_lock(1 - first);
                 RETURN NULL;
             END $$;
             CREATE TRIGGER embrace AFTER INSERT ON billing_transactions
             FOR EACH STATEMENT EXECUTE FUNCTION embrace();
             DO $$ BEGIN
                 EXECUTE format('ALTER DATABASE %I SET deadlock_timeout = ''20ms''', \
                 current_database());
             END $$;",
    )
    .await;
    let workers = vec![env.start_worker().await, env.start_worker().await];
    load.publish(&env).await;
    let count = audit(&env, &load, workers).await;
    let met = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    eventually("there were deadlocks", async || env.count(met).await > 0).await;
    report("database: real deadlocks", 1, count);
    env.teardown().await;
}

/// A file system of 48 MiB, gone with the test.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount() -> Self {
        let path =
            std::env::temp_dir().join(format!("revertd-small-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir(&path).expect("created");
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=48m,mode=0777", "revertd"])
            .arg(&path)
            .status();
        assert!(
            done.expect("mount is there").success(),
            "a small file system needs the right to mount one"
        );
        Self(path)
    }

    /// Takes all the room that there is.
    fn fill(&self) {
        let ballast = self.0.join("ballast");
        let mut file = std::fs::File::create(&ballast).expect("created");
        let block = vec![0; 64 * 1024];
        while std::io::Write::write_all(&mut file, &block).is_ok() {}
    }

    fn make_room(&self) {
        std::fs::remove_file(self.0.join("ballast")).expect("removed");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
        if unmounted.is_ok_and(|status| status.success()) {
            let _ = std::fs::remove_dir(&self.0);
        }
    }
}

/// The server wants tables in a folder that belongs to its user, as its own files do.
async fn give_to_server(env: &TestEnv, folder: &std::path::Path) {
    let row = env.db.query_one("SHOW data_directory", &[]).await;
    let like: String = row.expect("shown").get(0);
    let done = Command::new("chown")
        .arg(format!("--reference={like}"))
        .arg(folder)
        .status();
    assert!(done.expect("chown is there").success());
}

#[tokio::test]
async fn a_full_disk_is_waited_for() {
    let seed = seed();
    let disk = SmallDisk::mount();
    let (instance, servers) = Instance::start();
    let mut env = TestEnv::on(servers).await;
    env.set("WORKER__BATCH_MAX", "100");
    // The ledger and the outcomes move to it; the server's own files stay where they are.
    let room = disk.0.join("tables");
    std::fs::create_dir(&room).expect("created");
    give_to_server(&env, &room).await;
    env.sql(&format!(
        "CREATE TABLESPACE small LOCATION '{}'",
        room.display()
    ))
    .await;
    for table in ["billing_transactions", "revertd.outcomes"] {
        env.sql(&format!("ALTER TABLE {table} SET TABLESPACE small"))
            .await;
    }
    let load = Load::mixed(&env, seed, size().max(2000)).await;
    let mut worker = env.start_worker().await;
    disk.fill();
    load.publish(&env).await;
    worker.logged("is out of disk space").await;
    disk.make_room();
    let count = audit(&env, &load, vec![worker]).await;
    report("database: full disk", 1, count);
    drop(env);
    drop(instance);
}
