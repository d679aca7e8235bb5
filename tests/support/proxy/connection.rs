//! One connection through the proxy: its two directions and its end.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::postgres::{PieceAction, PostgresSession};
use super::{Conditions, Direction, Ending, Shared, Way, lock};

/// Pieces on their way in one direction; beyond them the sender is held back, as by any network.
const PIECES: usize = 64;

/// Longest that a slow connection sends nothing between two pieces.
const SLOW_STEP: Duration = Duration::from_millis(50);

pub struct ProxiedConnection {
    pub conditions: watch::Sender<Conditions>,
    ending: watch::Sender<Option<Ending>>,
    to_server: AtomicU64,
    to_client: AtomicU64,
    postgres_session: Option<PostgresSession>,
}

impl ProxiedConnection {
    pub fn carried(&self, direction: Direction) -> u64 {
        self.carrier(direction).load(Ordering::SeqCst)
    }

    pub fn parses(&self) -> u64 {
        self.postgres_session
            .as_ref()
            .map_or(0, PostgresSession::parses)
    }

    /// The first ending counts.
    pub fn end(&self, ending: Ending) {
        self.ending.send_if_modified(|current| {
            let first = current.is_none();
            current.get_or_insert(ending);
            first
        });
    }

    fn carrier(&self, direction: Direction) -> &AtomicU64 {
        match direction {
            Direction::ToServer => &self.to_server,
            Direction::ToClient => &self.to_client,
        }
    }

    async fn ended(&self) -> Ending {
        let mut ending = self.ending.subscribe();
        let ending = ending.wait_for(Option::is_some).await;
        ending.ok().and_then(|ending| *ending).expect("just seen")
    }
}

pub async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // Without descriptors there is nothing to go on with; the test shows it.
    while let Ok((client, _)) = listener.accept().await {
        if shared.refusing.load(Ordering::SeqCst) {
            shared.refused.fetch_add(1, Ordering::SeqCst);
            reset(client);
            continue;
        }
        let connection = Arc::new(ProxiedConnection {
            conditions: watch::Sender::new(*lock(&shared.for_new)),
            ending: watch::Sender::new(None),
            to_server: AtomicU64::new(0),
            to_client: AtomicU64::new(0),
            postgres_session: shared.speaks_postgres.then(PostgresSession::default),
        });
        lock(&shared.connections).push(connection.clone());
        tokio::spawn(serve(client, connection, shared.clone()));
    }
}

async fn serve(mut client: TcpStream, connection: Arc<ProxiedConnection>, shared: Arc<Shared>) {
    let Ok(mut server) = TcpStream::connect(&shared.server).await else {
        reset(client);
        return;
    };
    // Small packets are sent at once: the test measures the worker, not the proxy.
    let prompt = client.set_nodelay(true).and(server.set_nodelay(true));
    prompt.expect("a socket option");
    let ending = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let carry = |direction| Carry {
            direction,
            connection: &connection,
            shared: &shared,
        };
        let both = async {
            tokio::join!(
                carry(Direction::ToServer).run(from_client, to_server),
                carry(Direction::ToClient).run(from_server, to_client)
            );
            Ending::Close
        };
        tokio::select! {
            biased;
            ending = connection.ended() => ending,
            passed = both => passed,
        }
    };
    match ending {
        Ending::Close => {
            // A side that is already gone returns an error here.
            let _ = client.shutdown().await;
            let _ = server.shutdown().await;
        }
        Ending::Reset => {
            reset(client);
            reset(server);
        }
        Ending::ServerForgotten => {
            reset(client);
            forget(server).await;
        }
        Ending::ClientForgotten => {
            reset(server);
            forget(client).await;
        }
    }
}

fn reset(socket: TcpStream) {
    // If the peer closed it first, there is nothing left to reset.
    let _ = socket.set_zero_linger();
    drop(socket);
}

/// Keeps the socket open as if its peer had vanished: for as long as the proxy lasts.
async fn forget(socket: TcpStream) {
    std::future::pending::<()>().await;
    drop(socket);
}

/// One direction of a connection.
struct Carry<'a> {
    direction: Direction,
    connection: &'a ProxiedConnection,
    shared: &'a Shared,
}

impl Carry<'_> {
    /// Carries bytes until the sender ends or the receiver is gone; then passes the end on.
    async fn run(self, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) {
        let (pieces, mut coming) = mpsc::channel(PIECES);
        let reading = async move {
            let mut buffer = vec![0; 16 * 1024];
            while let Ok(length @ 1..) = from.read(&mut buffer).await {
                let piece = (Instant::now(), buffer[..length].to_vec());
                if pieces.send(piece).await.is_err() {
                    break;
                }
            }
            drop(pieces);
            std::future::pending::<()>().await;
        };
        let writing = async {
            while let Some((came, piece)) = coming.recv().await {
                if self.pass(came, &piece, &mut to).await.is_err() {
                    return;
                }
            }
            // The end of a connection is as silent as its bytes.
            self.audible().await;
            let _ = to.shutdown().await;
        };
        tokio::select! {
            () = reading => {}
            () = writing => {}
        }
    }

    async fn pass(&self, came: Instant, piece: &[u8], to: &mut WriteHalf<'_>) -> io::Result<()> {
        self.audible().await;
        sleep_until(came + self.way().delay).await;
        if let Some(postgres_session) = &self.connection.postgres_session {
            match postgres_session.read_piece(self.direction, piece, self.shared) {
                PieceAction::Pass => {}
                PieceAction::Lose => return Ok(()),
                PieceAction::LoseAndEnd(ending) => return self.end(ending).await,
            }
        }
        let Some((before, ending)) = self.cut_within(piece.len()) else {
            return self.write(piece, to).await;
        };
        self.write(&piece[..before], to).await?;
        self.end(ending).await
    }

    /// How much of the next `length` bytes still passes before the connection is to end, if it is.
    fn cut_within(&self, length: usize) -> Option<(usize, Ending)> {
        let mut armed = lock(&self.shared.cut);
        let cut = armed.filter(|cut| cut.direction == self.direction)?;
        let left = cut
            .after_bytes
            .checked_sub(self.connection.carried(self.direction))?;
        let left = usize::try_from(left).ok().filter(|left| *left <= length)?;
        *armed = None;
        self.shared.cuts.fetch_add(1, Ordering::SeqCst);
        Some((left, cut.ending))
    }

    /// Ends the connection and every task that waits for it.
    async fn end(&self, ending: Ending) -> io::Result<()> {
        self.connection.end(ending);
        std::future::pending().await
    }

    async fn write(&self, bytes: &[u8], to: &mut WriteHalf<'_>) -> io::Result<()> {
        let carrier = self.connection.carrier(self.direction);
        let mut left = bytes;
        while let Some(rate) = self.way().bytes_per_second.filter(|_| !left.is_empty()) {
            let step = (f64::from(rate) * SLOW_STEP.as_secs_f64()).max(1.0);
            // The rate is small enough for a float.
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let (now, later) = left.split_at(left.len().min(step as usize));
            sleep(SLOW_STEP).await;
            to.write_all(now).await?;
            carrier.fetch_add(now.len() as u64, Ordering::SeqCst);
            left = later;
        }
        to.write_all(left).await?;
        carrier.fetch_add(left.len() as u64, Ordering::SeqCst);
        Ok(())
    }

    fn way(&self) -> Way {
        self.connection.conditions.borrow().of(self.direction)
    }

    async fn audible(&self) {
        let mut conditions = self.connection.conditions.subscribe();
        let passes = |conditions: &Conditions| !conditions.of(self.direction).silent;
        // The sender is the connection's own, so it is there.
        let _ = conditions.wait_for(passes).await;
    }
}
