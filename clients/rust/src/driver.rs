//! The task that owns a client's connection, and makes it anew when it is lost.
//!
//! A request is added to the calls by whoever sends it; the task sends what the calls say, and
//! hands them the replies. While there are calls, it connects again whenever the connection was
//! lost. It ends when the client is closed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};
use tokio::time::{sleep, sleep_until};
use tracing::{debug, warn};

use crate::address::Location;
use crate::envelope::Encoded;
use crate::pending_calls::{PendingCalls, Request};
use crate::transport::{Link, connect, unreachable};
use crate::{Code, Error, Fault};

/// The delay before the next connection after one that was lost or refused; it doubles up to the
/// second until a reply comes.
const RECONNECT_DELAY: Duration = Duration::from_millis(25);
const RECONNECT_DELAY_MAX: Duration = Duration::from_secs(1);
/// So long what has arrived is read before calls are timed out: their replies may be in it.
const READ_FIRST: Duration = Duration::from_millis(100);
const RUNTIME_ENDED: &str = "the runtime of the connection was shut down";
const SILENT: &str = "the daemon does not answer";

/// Told of each connection, and with a problem of each loss.
pub type OnConnection = Arc<dyn Fn(Option<&Error>) + Send + Sync>;

/// What a client and its task share.
pub struct Driver {
    location: Location,
    on_connection: Option<OnConnection>,
    state: Mutex<State>,
    /// There is something new for the task.
    changed: Notify,
}

#[derive(Default)]
struct State {
    calls: PendingCalls,
    has_task: bool,
    /// Why there is no connection.
    problem: Option<Error>,
}

impl Driver {
    pub fn new(location: Location, on_connection: Option<OnConnection>) -> Self {
        Self {
            location,
            on_connection,
            state: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// Send a request and wait for its outcome. If the future is dropped, nobody waits for the
    /// request any more.
    pub async fn execute(self: &Arc<Self>, request: Request<'_>) -> Result<Encoded, Error> {
        let runtime = Handle::current(); // of the task, should there be none yet
        let (settle, outcome) = oneshot::channel();
        let (number, has_task) = {
            let mut state = self.state();
            let number = state.calls.add(request, settle)?;
            (number, std::mem::replace(&mut state.has_task, true))
        };
        if !has_task {
            runtime.spawn(run(Running(self.clone())));
        }
        self.changed.notify_one();
        let _waiting = ForgetOnDrop {
            driver: self,
            number,
        };
        outcome
            .await
            .unwrap_or_else(|_| Err(Error::new(Code::NoReply, RUNTIME_ENDED)))
    }

    pub fn is_closed(&self) -> bool {
        self.state().calls.is_closed()
    }

    /// Settle all calls, accept no more, and end the task.
    pub fn close(&self) {
        self.state().calls.close();
        self.changed.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wait until there are calls; false when the client is closed.
    async fn is_needed(&self) -> bool {
        loop {
            {
                let state = self.state();
                if state.calls.is_closed() {
                    return false;
                }
                if !state.calls.is_empty() {
                    return true;
                }
            }
            self.changed.notified().await;
        }
    }

    /// Do something while there is no connection, and time out the calls whose deadlines pass;
    /// `None` when nobody waits any more before it is done.
    async fn without_connection<T>(&self, action: impl Future<Output = T>) -> Option<T> {
        let mut action = pin!(action);
        loop {
            let deadline = {
                let state = self.state();
                if state.calls.is_empty() {
                    return None;
                }
                state.calls.next_deadline()
            };
            tokio::select! {
                biased;
                result = &mut action => return Some(result),
                () = self.changed.notified() => {}
                () = until(deadline) => {
                    self.time_out(None);
                }
            }
        }
    }

    /// Use a connection until it is lost; returns why. `replied` is called when there was a reply.
    async fn serve(&self, link: &mut Link, mut replied: impl FnMut()) -> Error {
        let mut late_since = None;
        let reason = loop {
            let Some(wake) = self.send(link) else {
                break "the client was closed".to_owned();
            };
            let now = Instant::now();
            let is_late = wake.is_some_and(|wake| wake <= now);
            late_since = is_late.then(|| late_since.unwrap_or(now));
            if late_since.is_some_and(|since| now - since > READ_FIRST) {
                self.state().calls.queue_retry(Some(now));
                if self.time_out(Some(link.connection.received_at())) {
                    break SILENT.to_owned();
                }
            }
            tokio::select! {
                biased;
                received = link.connection.receive() => match received {
                    Ok(body) => {
                        replied();
                        if let Err(reason) = self.receive(link, body) {
                            break reason;
                        }
                    }
                    Err(reason) => break reason,
                },
                () = self.changed.notified() => {}
                () = until(wake) => {
                    self.state().calls.queue_retry(Some(Instant::now()));
                    if self.time_out(Some(link.connection.received_at())) {
                        break SILENT.to_owned();
                    }
                }
            }
        };
        unreachable(&link.endpoint, &reason)
    }

    /// Have all sent that can be now; returns when there is something to do next, `None` when the
    /// client is closed.
    fn send(&self, link: &mut Link) -> Option<Option<Instant>> {
        let mut state = self.state();
        if state.calls.is_closed() {
            return None;
        }
        while let Some(body) = state.calls.next_body(Instant::now(), link.token.as_deref()) {
            link.connection.send(&body);
        }
        Some(
            [state.calls.retry_at(), state.calls.next_deadline()]
                .into_iter()
                .flatten()
                .min(),
        )
    }

    /// Process a reply, and others that have arrived with it.
    fn receive(&self, link: &mut Link, first: Vec<u8>) -> Result<(), String> {
        let mut state = self.state();
        let mut next = Some(first);
        while let Some(body) = next {
            if let Err(error) = state.calls.handle_reply(&body, Instant::now()) {
                state.calls.fail_all(&error); // it is unknown which call it belongs to
            }
            next = link.connection.take_message()?;
        }
        Ok(())
    }

    /// Time out the calls whose deadlines have passed; returns whether the connection is to be
    /// given up.
    fn time_out(&self, received_at: Option<Instant>) -> bool {
        let mut state = self.state();
        let behind = || {
            Error::unavailable("too many requests before it have no reply yet; nothing was sent")
        };
        let problem = if received_at.is_some() {
            Some(behind())
        } else {
            state.problem.clone()
        };
        let mut gives_up = false;
        while let Some(number) = state.calls.overdue(Instant::now()) {
            gives_up |= state.calls.time_out(number, problem.clone(), received_at);
        }
        gives_up
    }

    fn connected(&self) {
        let mut state = self.state();
        state.problem = None;
        state.calls.reconnected();
        drop(state);
        debug!("connected");
        self.tell(None);
    }

    fn lost(&self, problem: &Error) {
        let mut state = self.state();
        if state.calls.is_closed() {
            return;
        }
        state.problem = Some(problem.clone());
        state.calls.lost();
        if problem.fault() == Fault::Caller {
            state.calls.fail_unsent(problem); // it does not go away by waiting
        }
        drop(state);
        warn!(code = %problem.code(), "not connected: {problem}");
        self.tell(Some(problem));
    }

    /// Call the application's function. Should it panic, that is no reason for requests to fail.
    fn tell(&self, problem: Option<&Error>) {
        if let Some(on_connection) = &self.on_connection {
            let _ = catch_unwind(AssertUnwindSafe(|| on_connection(problem)));
        }
    }
}

/// The task of a driver.
async fn run(running: Running) {
    let driver = &running.0;
    let mut delay = RECONNECT_DELAY;
    while driver.is_needed().await {
        let problem = match driver.without_connection(connect(&driver.location)).await {
            None => continue,
            Some(Ok(mut link)) => {
                driver.connected();
                // A daemon may accept connections only to end them: the delay begins anew with a
                // reply, not before.
                driver.serve(&mut link, || delay = RECONNECT_DELAY).await
            }
            Some(Err(problem)) => problem,
        };
        driver.lost(&problem);
        let _ = driver.without_connection(sleep(delay)).await;
        delay = (2 * delay).min(RECONNECT_DELAY_MAX);
    }
}

/// A driver while its task runs. Should the runtime of the task end, nobody waits in vain, and the
/// next request starts another task.
struct Running(Arc<Driver>);

impl Drop for Running {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.has_task = false;
        state.calls.leave_unanswered(RUNTIME_ENDED);
        state.calls.lost();
    }
}

/// A request whose future is dropped is one that nobody waits for.
struct ForgetOnDrop<'a> {
    driver: &'a Driver,
    number: u64,
}

impl Drop for ForgetOnDrop<'_> {
    fn drop(&mut self) {
        self.driver.state().calls.forget(self.number);
    }
}

/// Wait until a time, or for ever.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}
