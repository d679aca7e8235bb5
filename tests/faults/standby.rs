//! A primary whose commits wait for a standby: the primary fails, the standby takes over, and every
//! published event stays true.

use tokio_postgres::Client;

use crate::instance::Instance;
use crate::report::{full, report, seed};
use crate::support::audit::{AuditResult, audit};
use crate::support::load::Load;
use crate::support::reconnect::reconnect_db;
use crate::support::*;

/// Sessions of workers whose commit waits for the standby.
const WAITING: &str = "SELECT count(*) FROM pg_stat_activity \
                       WHERE application_name LIKE 'revertd%' AND wait_event = 'SyncRep'";

/// An instance whose database has a standby, and an environment on it.
struct Pair {
    instance: Instance,
    env: TestEnv,
    standby: String,
}

impl Pair {
    /// Workers know both servers, and use the one that accepts writes.
    async fn start() -> Self {
        let (instance, servers) = Instance::with_standby();
        let environment = instance.environment();
        let mut env = TestEnv::on(servers).await;
        let both = environment["REVERTD_TEST_DATABASE_NODES"]
            .replace("/revertd?", &format!("/{}?", env.database));
        env.set("DATABASE__URL", &both);
        env.set("WORKER__BATCH_MAX", "50");
        Self {
            instance,
            env,
            standby: environment["REVERTD_TEST_STANDBY_URL"].clone(),
        }
    }

    /// Makes the standby the primary. From now on the test queries and compares it.
    async fn promote(&mut self) {
        self.instance.promote().await;
        self.follow().await;
    }

    async fn follow(&mut self) {
        self.env.servers.database.clone_from(&self.standby);
        self.env.db = self.reconnect_db().await;
    }

    /// A session with the server that is asked, which may have been restarted.
    async fn reconnect_db(&self) -> Client {
        let env = &self.env;
        reconnect_db(&with_database(&env.servers.database, &env.database)).await
    }

    /// Waits until a commit waits for the standby.
    async fn waits(&self) {
        let db = self.reconnect_db().await;
        eventually("a commit waits for the standby", async || {
            let waiting = db.query_one(WAITING, &[]).await.expect("read");
            waiting.get::<_, i64>(0) > 0
        })
        .await;
    }

    async fn events(&self) -> u32 {
        self.env.depth(&self.env.name("replies")).await
    }
}

#[tokio::test]
async fn a_standby_takes_over_from_a_killed_primary() {
    let (seed, runs) = (seed(), if full() { 5 } else { 1 });
    let mut count = AuditResult::default();
    for run in 0..runs {
        let mut pair = Pair::start().await;
        let workers = vec![pair.env.start_worker().await, pair.env.start_worker().await];
        let load = Load::mixed(&pair.env, seed.wrapping_add(run), 3000).await;
        let (env, instance) = (&pair.env, &pair.instance);
        let fault = async {
            env.await_events(500).await;
            instance.run_action("kill", "pg").await;
            instance.promote().await;
        };
        tokio::join!(load.publish(env), fault);
        pair.follow().await;
        count += audit(&pair.env, &load, workers).await;
    }
    let runs = usize::try_from(runs).expect("few");
    report("standby: primary killed, standby promoted", runs, count);
}

/// A machine that hangs: connections are accepted, and nothing is answered.
#[tokio::test]
async fn a_standby_takes_over_from_a_silent_primary() {
    let mut pair = Pair::start().await;
    let load = Load::plain(&pair.env, seed(), 600).await;
    let mut workers = Vec::new();
    if full() {
        workers.push(pair.env.start_worker().await);
    }
    pair.instance.freeze("pg");
    pair.promote().await;
    for worker in &mut workers {
        // It has waited for an answer as long as a statement may take.
        load.publish(&pair.env).await;
        worker.logged("does not answer").await;
    }
    // A new one is not kept by the silent server from asking the other.
    workers.push(pair.env.start_worker().await);
    load.publish(&pair.env).await;
    let count = audit(&pair.env, &load, workers).await;
    pair.instance.run_action("kill", "pg").await;
    report("standby: primary silent, standby promoted", 1, count);
}

#[tokio::test]
async fn a_read_only_primary_is_waited_for_a_demoted_left() {
    let mut pair = Pair::start().await;
    let mut worker = pair.env.start_worker().await;
    let load = Load::mixed(&pair.env, seed(), if full() { 6000 } else { 3000 }).await;
    let (env, instance) = (&pair.env, &pair.instance);
    let fault = async {
        env.await_events(300).await;
        read_only(env, true).await;
        worker.logged("paused: the database").await;
        read_only(env, false).await;
        let so_far = env.depth(&env.name("replies")).await as usize;
        env.await_events(so_far + 300).await;
        instance.switchover().await;
    };
    tokio::join!(load.publish(env), fault);
    pair.follow().await;
    let count = audit(&pair.env, &load, vec![worker]).await;
    report("standby: primary read-only, then demoted", 1, count);
}

/// Sessions that are there already feel it, too.
async fn read_only(env: &TestEnv, on: bool) {
    let set = if on { "on" } else { "off" };
    env.sql(&format!(
        "ALTER SYSTEM SET default_transaction_read_only = {set}"
    ))
    .await;
    env.sql("SELECT pg_reload_conf()").await;
}

#[tokio::test]
async fn an_unreplicated_outcome_is_not_published() {
    let mut pair = Pair::start().await;
    let both = pair.env.setting("DATABASE__URL").expect("set").to_owned();
    let mut workers = Vec::new();
    for name in ["revertd-one", "revertd-two"] {
        let named = format!("{both}&application_name={name}");
        pair.env.set("DATABASE__URL", &named);
        workers.push((name, pair.env.start_worker().await));
    }
    let load = Load::plain(&pair.env, seed(), 1).await;
    pair.instance.run_action("stop-one", "pg2").await;
    load.publish(&pair.env).await;
    // One worker decides and hangs in its commit. It dies, and the server cancels the wait: the
    // outcome exists to be found, on the primary alone.
    pair.waits().await;
    let waiting = WAITING.replace("count(*)", "application_name, pid");
    let row = pair.env.db.query_one(&waiting, &[]).await.expect("one");
    let (name, pid): (String, i32) = (row.get(0), row.get(1));
    let dies = workers.iter().position(|(known, _)| *known == name);
    let (_, mut first) = workers.remove(dies.expect("one of the two"));
    first.kill();
    pair.env
        .sql(&format!("SELECT pg_cancel_backend({pid})"))
        .await;
    // The other finds it.
    let (other, second) = workers.remove(0);
    let finds = format!("{WAITING} AND application_name = '{other}'");
    eventually("whoever finds it waits, too", async || {
        assert_eq!(pair.events().await, 0, "nothing is told");
        pair.env.count(&finds).await > 0
    })
    .await;
    assert_eq!(
        pair.env
            .count("SELECT count(*) FROM revertd.outcomes")
            .await,
        1
    );
    assert_eq!(pair.events().await, 0, "nothing is told");
    pair.instance.run_action("kill", "pg").await;
    pair.instance.run_action("start-one", "pg2").await;
    pair.promote().await;
    let count = audit(&pair.env, &load, vec![second]).await;
    report("standby: an outcome found that it lacks", 1, count);
}

#[tokio::test]
async fn a_refusal_is_published_only_once_its_entry_is_safe() {
    let pair = Pair::start().await;
    let account = pair.env.customer().await.account;
    let usage = pair.env.usage(account, 20).await;
    let mut worker = pair.env.start_worker().await;
    pair.instance.run_action("stop-one", "pg2").await;
    // Frontier's commit is given up while it waits: its entry is there, on the primary alone.
    let name = format!("{usage}:0:{account}");
    let usage_id = usage.to_string();
    let reverting = pair.env.frontier_revert(&name, account, &usage_id, 5);
    let giving_up = async {
        let db = pair.reconnect_db().await;
        let give_up = "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity \
            WHERE datname = current_database() AND wait_event = 'SyncRep'";
        // Each leg is a commit of its own.
        loop {
            db.query_one(give_up, &[]).await.expect("cancelled");
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        _ = reverting => {}
        never = giving_up => match never {},
    }
    // Nothing of such a request is stored.
    let body = serde_json::json!({"billing_id": account, "usage_id": usage, "amount": 5});
    let without_id = Request::json(&body);
    pair.env.publish(&without_id).await;
    pair.waits().await;
    assert_eq!(pair.events().await, 0, "nothing is told");
    pair.instance.run_action("start-one", "pg2").await;
    let mut events = pair.env.events().await;
    let event = events.answer(&without_id).await;
    assert_eq!(event.verdict(), "ALREADY_REVERTED");
    assert!(worker.stop().await.success());
    pair.env.teardown().await;
}

#[tokio::test]
async fn commits_waiting_for_a_standby_publish_nothing() {
    let mut pair = Pair::start().await;
    let worker = pair.env.start_worker().await;
    let load = Load::plain(&pair.env, seed(), 300).await;
    pair.instance.run_action("stop-one", "pg2").await;
    load.publish(&pair.env).await;
    pair.waits().await;
    if full() {
        // Given up by the worker itself, again and again.
        for times in 1..=3 {
            let given_up = || worker.log().matches("does not answer").count();
            eventually("it is given up", async || given_up() >= times).await;
        }
    }
    // The same, sooner: by the server's doing.
    for _ in 0..6 {
        pair.waits().await;
        let stop = WAITING.replace("count(*)", "count(pg_terminate_backend(pid))");
        pair.env.sql(&stop).await;
    }
    let work = pair.env.name("work");
    let most = pair.env.most_redeliveries(&work).await;
    assert!(most <= 1, "only the first try is charged: {most}");
    // Rows that were not replicated exist after a restart.
    pair.instance.run_action("kill", "pg").await;
    pair.instance.run_action("start-one", "pg").await;
    let fresh = pair.env.spawn_worker();
    pair.waits().await;
    pair.env.db = pair.reconnect_db().await;
    let there = pair.env.count("SELECT count(*) FROM revertd.outcomes");
    assert!(there.await > 0, "the primary alone has outcomes");
    assert_eq!(pair.events().await, 0, "nothing is told");
    pair.instance.run_action("kill", "pg").await;
    pair.instance.run_action("start-one", "pg2").await;
    pair.promote().await;
    let count = audit(&pair.env, &load, vec![worker, fresh]).await;
    report("standby: missing, then promoted", 1, count);
}
