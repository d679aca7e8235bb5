//! The worker as a process: started, watched by its log, stopped or killed.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use super::{Program, eventually, logs};

/// A running `revertd worker`; killed when dropped.
pub struct WorkerProcess {
    child: Child,
    log: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl WorkerProcess {
    pub fn spawn(mut program: Program) -> Self {
        let mut child = program.spawn().expect("the program starts");
        let log = Arc::new(Mutex::new(String::new()));
        let (stderr, sink) = (child.stderr.take().expect("piped"), log.clone());
        let mut kept = logs::file("log");
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                // Shown with a test that fails.
                eprintln!("worker: {line}");
                if let Some(file) = &mut kept {
                    writeln!(file, "{line}").expect("the folder takes it");
                }
                let mut log = sink.lock().expect("nobody panics with it");
                log.push_str(&line);
                log.push('\n');
            }
        });
        Self {
            child,
            log,
            reader: Some(reader),
        }
    }

    pub fn log(&self) -> String {
        self.log.lock().expect("nobody panics with it").clone()
    }

    /// A function that reads its log, even after the process was handed on and has ended.
    pub fn log_handle(&self) -> impl Fn() -> String + use<> {
        let log = self.log.clone();
        move || log.lock().expect("nobody panics with it").clone()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it consumes.
    pub async fn ready(&mut self) {
        self.logged(" ready").await;
    }

    /// Waits until a line of its log contains `text`.
    pub async fn logged(&mut self, text: &str) {
        self.logged_since(0, text).await;
    }

    /// Waits until a line of its log after so many bytes contains `text`.
    pub async fn logged_since(&mut self, bytes: usize, text: &str) {
        eventually(&format!("the worker logs {text:?}"), async || {
            let ended = self.has_ended();
            let log = self.log();
            let said = log[bytes..].contains(text);
            assert!(said || !ended, "the worker ended: {log}");
            said
        })
        .await;
    }

    pub fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        let sent = Command::new("kill")
            .args([&format!("-{name}"), &pid])
            .status();
        assert!(sent.expect("kill is there").success(), "kill -{name} {pid}");
    }

    /// Whether it is no longer there.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_some()
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> ExitStatus {
        eventually("the worker ends", async || {
            self.child.try_wait().expect("a child").is_some()
        })
        .await;
        let status = self.child.wait().expect("a child");
        self.read_to_the_end();
        status
    }

    /// The log is whole only once its reader met the end: the process may be gone before.
    fn read_to_the_end(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("it only reads");
        }
    }

    /// Asks it to stop, and waits.
    pub async fn stop(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.ended().await
    }

    /// kill -9, and waits.
    pub fn kill(&mut self) {
        self.child.kill().expect("a child");
        self.child.wait().expect("a child");
        self.read_to_the_end();
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
