//! What a client has under way, without any I/O: encoding, decoding, and sending again.
//!
//! ```text
//!     request ──add()──▶ queue ──next_body()──▶ daemon
//!                        ▲  ▲                     │
//!        reconnected() ──┘  └── handle_reply() ◀──┘
//! ```
//!
//! The daemon executes a command once, however often it receives the same id. So unanswered calls
//! are sent again:
//!
//! - On a new connection, all of them in the order first sent, before anything new.
//! - After a refusal while an earlier attempt is in doubt, because its connection was lost. Such a
//!   refusal says nothing about that attempt, unless it is the caller's fault. The call is sent
//!   again after `RETRY_DELAY`, unless others were sent after it: then its outcome is unknown.
//!
//! A call is never sent twice on one connection, which loses nothing while it lives: the copy would
//! stand behind later requests, and could take effect after them. The ids of maintenance operations
//! are not remembered by the daemon, so these are sent once; if their connection is lost, the
//! outcome is unknown.
//!
//! A connection may be lost while the daemon runs on, with the refusal of a command unread. Sent
//! again, it is judged anew, after commands that were sent later. So commands have `client`, an id
//! of this object, and `n`, which rises: the daemon does not execute a command after a later one of
//! its client, and answers `superseded`.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::envelope::{Encoded, Envelope, Field, Reply};
use crate::generated::LEVEL;
use crate::generated::errors::Code;
use crate::language::Kind;
use crate::limits::{BODY_BYTES, LOG_BODY_BYTES, REQUEST_ID_BYTES, WAIT_MS};
use crate::records::JsonObject;
use crate::ulid::new_id;
use crate::{Error, Fault};

const RETRY_DELAY: Duration = Duration::from_millis(100);
/// Requests without a reply, and their bytes. Queries that wait in the daemon do not count: it has
/// a bound for them.
pub const IN_FLIGHT_MAX: usize = 1_000;
const IN_FLIGHT_BYTES_MAX: usize = 32 * 1024 * 1024;
/// All calls of a client, also those that are not sent yet, and the bytes of their bodies.
pub const CALLS_MAX: usize = 100_000;
const CALLS_BYTES_MAX: usize = 256 * 1024 * 1024;
const DEFAULT_SCOPE: &str = "default";
const CLOSED: &str = "the client was closed";

/// The result of a call, or its error.
pub type Outcome = Result<Encoded, Error>;

/// A request that is to become a call.
pub struct Request<'a> {
    /// Of the operation.
    pub name: &'a str,
    /// Of the operation.
    pub kind: Kind,
    /// In MessagePack.
    pub payload: Vec<u8>,
    /// How long the daemon is asked to wait.
    pub wait_ms: i64,
    /// How long the caller waits besides.
    pub timeout: Duration,
    /// The account; `default` if there is none.
    pub scope: Option<&'a str>,
    /// The id of the request; a new one if there is none.
    pub id: Option<&'a str>,
    /// W3C trace context.
    pub traceparent: Option<&'a str>,
    /// When the caller began to wait.
    pub now: Instant,
}

/// One request, from its creation until its outcome is known.
struct Call {
    id: String,
    kind: Kind,
    envelope: Envelope,
    /// A query that waits, to be encoded anew when it is sent again.
    waiting: Option<Waiting>,
    timeout: Duration,
    /// When its caller stops waiting.
    deadline: Instant,
    /// When it was sent on the current connection.
    sent_at: Option<Instant>,
    is_awaiting_reply: bool,
    is_in_doubt: bool,
    settle: oneshot::Sender<Outcome>,
}

/// A query that waits in the daemon. Its reply may come long after those of later calls.
struct Waiting {
    payload: JsonObject,
    wait: Duration,
}

impl Waiting {
    /// `None` for a request that does not wait, and for one that the daemon refuses: its refusal
    /// comes like any reply.
    fn of(payload: &[u8], wait_ms: i64) -> Option<Self> {
        let wait_ms = u64::try_from(wait_ms)
            .ok()
            .filter(|wait_ms| (1..=WAIT_MS).contains(wait_ms))?;
        let payload = rmp_serde::from_slice(payload).ok()?;
        Some(Self {
            payload,
            wait: Duration::from_millis(wait_ms),
        })
    }

    /// The payload of a request that has waited for a time: it waits so much less, or its reply
    /// would come too late.
    fn payload_after(&self, waited: Duration) -> Option<Vec<u8>> {
        let mut payload = self.payload.clone();
        let left = self.wait.saturating_sub(waited);
        payload.insert("waitMs".to_owned(), milliseconds(left).into());
        rmp_serde::to_vec_named(&payload).ok()
    }
}

/// A client's calls without an outcome, in the order first sent, and the queue of those to send
/// next.
pub struct PendingCalls {
    is_closed: bool,
    client: String,
    n: i64,
    /// For the first request only.
    level: Option<i64>,
    /// By their place among all calls of the client.
    calls: BTreeMap<u64, Call>,
    calls_bytes: usize,
    by_id: HashMap<String, u64>,
    deadlines: BTreeSet<(Instant, u64)>,
    /// Those to send next. Settled ones are skipped when they come to its head.
    queue: VecDeque<u64>,
    in_flight: usize,
    in_flight_bytes: usize,
    /// The bytes of requests in flight that nobody waits for; several under an id that was executed
    /// again.
    abandoned: HashMap<String, VecDeque<usize>>,
    abandoned_count: usize,
    added: u64,
    highest_sent: u64,
    refused: Option<u64>,
    retry_at: Option<Instant>,
}

impl Default for PendingCalls {
    fn default() -> Self {
        Self {
            is_closed: false,
            client: new_id(),
            n: 0,
            level: Some(LEVEL),
            calls: BTreeMap::new(),
            calls_bytes: 0,
            by_id: HashMap::new(),
            deadlines: BTreeSet::new(),
            queue: VecDeque::new(),
            in_flight: 0,
            in_flight_bytes: 0,
            abandoned: HashMap::new(),
            abandoned_count: 0,
            added: 0,
            highest_sent: 0,
            refused: None,
            retry_at: None,
        }
    }
}

impl PendingCalls {
    /// Whether all calls are settled.
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// Whether it accepts no more calls.
    pub fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// When to call [`queue_retry`](Self::queue_retry) next, if at all.
    pub fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// When the next call has to be [timed out](Self::time_out).
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|&(deadline, _)| deadline)
    }

    /// Append a call to the queue; returns its number, and gives its outcome to `settle`.
    pub fn add(
        &mut self,
        request: Request<'_>,
        settle: oneshot::Sender<Outcome>,
    ) -> Result<u64, Error> {
        let sender = (request.kind == Kind::Command).then(|| {
            self.n += 1;
            (self.client.as_str(), self.n)
        });
        let call = Call::new(request, sender, settle)?;
        self.check_room_for(&call)?;
        self.queue_retry(None); // a refused call goes before a new one
        self.added += 1;
        self.calls_bytes += call.envelope.len();
        self.by_id.insert(call.id.clone(), self.added);
        self.deadlines.insert((call.deadline, self.added));
        self.calls.insert(self.added, call);
        self.queue.push_back(self.added);
        Ok(self.added)
    }

    fn check_room_for(&self, call: &Call) -> Result<(), Error> {
        if self.is_closed {
            return Err(call.unanswered(Some(CLOSED)));
        }
        if self.by_id.contains_key(&call.id) {
            return Err(Error::invalid(format!(
                "a request with the id {:?} is already in flight",
                call.id
            )));
        }
        if self.calls.len() >= CALLS_MAX || self.calls_bytes + call.envelope.len() > CALLS_BYTES_MAX
        {
            let (calls, bytes) = (self.calls.len(), self.calls_bytes);
            return Err(Error::busy(format!(
                "{calls} requests of this client, of {bytes} bytes, have no reply yet: wait for \
                 some; nothing was sent"
            )));
        }
        Ok(())
    }

    /// The body of the call to send now; none if there is none, or too many are in flight.
    pub fn next_body(&mut self, now: Instant, token: Option<&str>) -> Option<Vec<u8>> {
        let number = self.head()?;
        let call = &self.calls[&number];
        let (bytes, waits) = (call.envelope.len(), call.waiting.is_some());
        if !waits && self.is_full(bytes) {
            return None;
        }
        self.queue.pop_front();
        let level = self.level.take();
        if !waits {
            self.in_flight += 1;
            self.in_flight_bytes += bytes;
        }
        self.highest_sent = self.highest_sent.max(number);
        let call = self.calls.get_mut(&number)?;
        call.is_awaiting_reply = true;
        call.sent_at = Some(now);
        Some(call.body_at(now, level, token))
    }

    /// The number of the next call in the queue.
    fn head(&mut self) -> Option<u64> {
        while let Some(&number) = self.queue.front() {
            if self.calls.contains_key(&number) {
                return Some(number);
            }
            self.queue.pop_front();
        }
        None
    }

    /// Process a reply. One to a call that nobody waits for is dropped; one that is none is an
    /// error.
    pub fn handle_reply(&mut self, body: &[u8], now: Instant) -> Result<(), Error> {
        let reply = Reply::read(body)?;
        let Some(id) = reply.id else { return Ok(()) };
        if self.is_of_abandoned(id) {
            return Ok(());
        }
        let Some(&number) = self.by_id.get(id) else {
            return Ok(());
        };
        let Some(call) = self
            .calls
            .get_mut(&number)
            .filter(|call| call.is_awaiting_reply)
        else {
            return Ok(());
        };
        call.is_awaiting_reply = false;
        if call.waiting.is_none() {
            self.in_flight -= 1;
            self.in_flight_bytes -= call.envelope.len();
        }
        let outcome = reply.outcome();
        let is_final = !call.is_in_doubt
            || outcome
                .as_ref()
                .map_or_else(|error| error.fault() == Fault::Caller, |_| true);
        if is_final {
            self.settle(number, outcome);
        } else if number < self.highest_sent {
            let why = "a retry was refused, and other requests were sent after it";
            let error = call.unanswered(Some(why));
            self.settle(number, Err(error));
        } else {
            self.refused = Some(number);
            self.retry_at = Some(now + RETRY_DELAY);
            if self.head().is_some() {
                self.queue_retry(None);
            }
        }
        Ok(())
    }

    /// There is a new connection: queue all calls without an outcome to be sent on it, in order.
    pub fn reconnected(&mut self) {
        self.lost();
        self.queue = self.calls.keys().copied().collect();
    }

    /// The connection was lost: what was sent on it is in doubt.
    pub fn lost(&mut self) {
        self.in_flight = 0;
        self.in_flight_bytes = 0;
        self.abandoned.clear();
        self.abandoned_count = 0;
        self.refused = None;
        self.retry_at = None;
        self.queue.clear();
        for call in self.calls.values_mut() {
            call.is_in_doubt = call.was_sent();
            call.is_awaiting_reply = false;
        }
        self.fail(|call| {
            let is_lost = call.is_in_doubt && call.kind == Kind::Maintenance;
            is_lost.then(|| call.unanswered(Some("the connection was lost")))
        });
    }

    /// Queue the refused call, before those that were never sent, if its delay is over; it is if no
    /// time is given.
    pub fn queue_retry(&mut self, now: Option<Instant>) {
        if now.is_some_and(|now| self.retry_at.is_some_and(|retry_at| now < retry_at)) {
            return;
        }
        self.retry_at = None;
        if let Some(number) = self.refused.take() {
            self.queue.push_front(number);
        }
    }

    /// Drop a call that nobody waits for any more.
    pub fn forget(&mut self, number: u64) {
        self.remove(number);
    }

    /// Time out a call whose deadline has passed. It is `problem` if it was not sent, or else that
    /// its outcome is unknown.
    ///
    /// Returns whether the connection is to be given up as lost: if nothing has arrived since the
    /// call was sent, and if nobody waits for any of the requests that fill the window, because
    /// their replies may never come.
    pub fn time_out(
        &mut self,
        number: u64,
        problem: Option<Error>,
        received_at: Option<Instant>,
    ) -> bool {
        let Some(call) = self.calls.get(&number) else {
            return false;
        };
        let (bytes, waits) = (call.envelope.len(), call.waiting.is_some());
        let is_silent =
            call.is_awaiting_reply && received_at < call.sent_at && received_at.is_some();
        let error = problem
            .filter(|_| !call.was_sent())
            .unwrap_or_else(|| call.unanswered(None));
        self.settle(number, Err(error));
        is_silent || (!waits && self.is_full(bytes) && self.in_flight == self.abandoned_count)
    }

    /// The next call whose deadline has passed.
    pub fn overdue(&self, now: Instant) -> Option<u64> {
        self.deadlines
            .first()
            .filter(|(deadline, _)| *deadline <= now)
            .map(|&(_, number)| number)
    }

    /// Give the calls that were never sent an error.
    pub fn fail_unsent(&mut self, error: &Error) {
        self.fail(|call| (!call.was_sent()).then(|| error.clone()));
    }

    /// Give all calls an error.
    pub fn fail_all(&mut self, error: &Error) {
        self.fail(|_| Some(error.clone()));
    }

    /// Accept no more calls, and leave those without an outcome unanswered.
    pub fn close(&mut self) {
        self.is_closed = true;
        self.leave_unanswered(CLOSED);
    }

    /// Leave all calls unanswered.
    pub fn leave_unanswered(&mut self, why: &str) {
        self.fail(|call| Some(call.unanswered(Some(why))));
    }

    fn fail(&mut self, error_of: impl Fn(&Call) -> Option<Error>) {
        let failed = self
            .calls
            .iter()
            .filter_map(|(&number, call)| Some((number, error_of(call)?)));
        for (number, error) in failed.collect::<Vec<_>>() {
            self.settle(number, Err(error));
        }
    }

    fn settle(&mut self, number: u64, outcome: Outcome) {
        if let Some(call) = self.remove(number) {
            let _ = call.settle.send(outcome); // nobody waits for it if that fails
        }
    }

    fn remove(&mut self, number: u64) -> Option<Call> {
        let call = self.calls.remove(&number)?;
        self.by_id.remove(&call.id);
        self.deadlines.remove(&(call.deadline, number));
        self.calls_bytes -= call.envelope.len();
        if self.refused == Some(number) {
            self.refused = None;
            self.retry_at = None;
        }
        if call.is_awaiting_reply && call.waiting.is_none() {
            self.abandoned
                .entry(call.id.clone())
                .or_default()
                .push_back(call.envelope.len());
            self.abandoned_count += 1;
        }
        if self.queue.len() > 2 * self.calls.len() + IN_FLIGHT_MAX {
            self.queue.retain(|number| self.calls.contains_key(number));
        }
        Some(call)
    }

    /// Note a reply to a request that nobody waits for. If the same id was sent again after it, a
    /// refusal of the first says nothing about the second.
    fn is_of_abandoned(&mut self, id: &str) -> bool {
        let Some(sent) = self.abandoned.get_mut(id) else {
            return false;
        };
        let bytes = sent.pop_front().unwrap_or_default();
        if sent.is_empty() {
            self.abandoned.remove(id);
        }
        self.abandoned_count -= 1;
        self.in_flight -= 1;
        self.in_flight_bytes -= bytes;
        true
    }

    /// Whether so many bytes more would be too much; one request is always allowed.
    fn is_full(&self, bytes: usize) -> bool {
        self.in_flight >= IN_FLIGHT_MAX
            || (self.in_flight > 0 && self.in_flight_bytes + bytes > IN_FLIGHT_BYTES_MAX)
    }
}

/// The states of a call, in the words of the protocol's table.
#[doc(hidden)]
impl PendingCalls {
    pub fn state_of(&self, id: &str) -> &'static str {
        let Some(number) = self.by_id.get(id) else {
            return "settled";
        };
        let call = &self.calls[number];
        match (call.is_awaiting_reply, call.is_in_doubt) {
            (true, true) => "resent",
            (true, false) => "sent",
            (false, false) => "to-send",
            (false, true) if self.refused == Some(*number) => "to-retry",
            (false, true) => "to-resend",
        }
    }
}

impl Call {
    fn new(
        request: Request<'_>,
        sender: Option<(&str, i64)>,
        settle: oneshot::Sender<Outcome>,
    ) -> Result<Self, Error> {
        let id = request.id.map_or_else(|| Ok(new_id()), checked_id)?;
        let waiting = Waiting::of(&request.payload, request.wait_ms);
        let mut envelope = Envelope::new(&id, request.name, request.payload);
        if let Some(scope) = request.scope.filter(|&scope| scope != DEFAULT_SCOPE) {
            envelope.add("scope", Field::Text(scope));
        }
        if let Some((client, n)) = sender {
            envelope.add("client", Field::Text(client));
            envelope.add("n", Field::Number(n));
        }
        if let Some(traceparent) = request.traceparent {
            envelope.add("traceparent", Field::Text(traceparent));
        }
        let most = if request.name == "append-log" {
            LOG_BODY_BYTES
        } else {
            BODY_BYTES
        };
        if envelope.len() as u64 > most {
            let bytes = envelope.len();
            return Err(Error::new(
                Code::TooLarge,
                format!("the body has {bytes} bytes; at most {most} are allowed"),
            ));
        }
        let timeout = request.timeout
            + waiting
                .as_ref()
                .map_or(Duration::ZERO, |waiting| waiting.wait);
        Ok(Self {
            id,
            kind: request.kind,
            envelope,
            waiting,
            timeout,
            deadline: request.now + timeout,
            sent_at: None,
            is_awaiting_reply: false,
            is_in_doubt: false,
            settle,
        })
    }

    /// Whether the call may have had an effect, while it has no outcome.
    fn was_sent(&self) -> bool {
        self.is_awaiting_reply || self.is_in_doubt
    }

    /// What to send now. Attempts differ only in `deadlineMs`, the remaining time.
    fn body_at(&self, now: Instant, level: Option<i64>, token: Option<&str>) -> Vec<u8> {
        let remaining = self.deadline.saturating_duration_since(now);
        let mut fields = vec![("deadlineMs", Field::Number(milliseconds(remaining).max(1)))];
        fields.extend(level.map(|level| ("level", Field::Number(level))));
        fields.extend(token.map(|token| ("auth", Field::Text(token))));
        let waited = self.timeout.saturating_sub(remaining);
        let waiting = self.waiting.as_ref().filter(|_| !waited.is_zero());
        let payload = waiting.and_then(|waiting| waiting.payload_after(waited));
        self.envelope.body(&fields, payload.as_deref())
    }

    /// The error for a call that got no reply: `unavailable` if it was not sent, otherwise
    /// `no-reply`.
    fn unanswered(&self, why: Option<&str>) -> Error {
        if !self.was_sent() {
            return Error::unavailable(format!(
                "{}; nothing was sent",
                why.unwrap_or("no daemon answers")
            ));
        }
        let reason = why.map_or_else(
            || format!("no reply within {} ms", self.timeout.as_millis()),
            str::to_owned,
        );
        Error::new(
            Code::NoReply,
            format!("{reason}: whether the request took effect is unknown"),
        )
    }
}

fn checked_id(id: &str) -> Result<String, Error> {
    if (1..=REQUEST_ID_BYTES).contains(&(id.len() as u64)) {
        return Ok(id.to_owned());
    }
    Err(Error::invalid(format!(
        "a request id must be text of 1 to {REQUEST_ID_BYTES} bytes"
    )))
}

/// Whole milliseconds, rounded up.
fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX)
}
