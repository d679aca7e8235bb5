//! A cluster of three brokers loses one node after another under load.
//!
//! The queues are quorum queues of three members. The node that goes takes the leaders of some along, and the
//! connections of some workers; the other two go on.

use crate::instance::Instance;
use crate::report::{full, report, seed};
use crate::support::audit::{Count, audit};
use crate::support::load::Load;
use crate::support::*;

const NODES: [&str; 3] = ["rabbit", "rabbit2", "rabbit3"];

/// Requests of a round, published in two halves.
const ROUND: usize = 1000;

#[tokio::test]
async fn nodes_of_a_cluster_are_killed_and_come_back_one_after_another() {
    let (seed, rounds) = (seed(), if full() { 12 } else { 3 });
    let (instance, servers) = Instance::cluster();
    let mut stage = Stage::on(servers).await;
    stage.set("WORKER__BATCH_MAX", "20");
    // Declares the queues, which have a leader from then on.
    stage.start_worker().await.stop().await;
    let first = leader(&instance, &stage.name("work"));
    let mut victims = NODES.iter().cycle().skip_while(|node| **node != first);
    let (mut down, mut count) = (None, Count::default());
    for round in 0..rounds {
        let workers = vec![stage.start_worker().await, stage.start_worker().await];
        let mut load = Load::mixed(&stage, seed.wrapping_add(round), ROUND).await;
        let later = split(&mut load);
        let back = async {
            if let Some(node) = down {
                instance.act("start-one", node).await;
            }
        };
        tokio::join!(load.publish(&stage), back);
        let victim = victims.next().expect("a cycle");
        let before = outcomes(&stage).await;
        let fault = async {
            eventually("work goes on", async || outcomes(&stage).await > before).await;
            instance.act("kill", victim).await;
        };
        tokio::join!(later.publish(&stage), fault);
        load.requests.extend(later.requests);
        // Everything is answered while the node is down: nothing waits for its return.
        count += audit(&stage, &load, workers).await;
        down = Some(victim);
    }
    report(
        "cluster: a node killed",
        usize::try_from(rounds).expect("few"),
        count,
    );
}

/// Takes the second half off a load, to be published later.
fn split(load: &mut Load) -> Load {
    let later = load.requests.split_off(load.requests.len() / 2);
    Load {
        world: load.world.clone(),
        requests: later,
    }
}

async fn outcomes(stage: &Stage) -> i64 {
    stage.count("SELECT count(*) FROM revertd.outcomes").await
}

/// The node that leads a queue. The name of a node begins with its kind.
fn leader(instance: &Instance, queue: &str) -> &'static str {
    let listed = instance.ctl(&["-q", "list_queues", "name", "leader"]);
    let mut lines = listed.lines().filter_map(|line| line.split_once('\t'));
    let (_, node) = lines.find(|(name, _)| *name == queue).expect("it is there");
    let leads = |kind: &&&str| node.split('-').next() == Some(**kind);
    NODES.iter().find(leads).expect("one of the three")
}
