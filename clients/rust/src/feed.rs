//! Following the feed: what to ask next, and what to give the caller.
//!
//! One question is asked at a time, and only while the caller waits for the next item: nothing is
//! queued for a slow caller. The first question shows whether a daemon answers: its errors are the
//! caller's. From then on the daemon is waited for, however long it is away. Nothing is lost with a
//! connection, because the daemon pushes nothing: whatever happened, the next question has the same
//! cursor.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::client::{Client, RequestOptions};
use crate::envelope::Encoded;
use crate::language::{Operation, Query};
use crate::operations::{GetChanges, Ping};
use crate::records::{ChangePage, ItemChange, Noun};
use crate::{Code, Error};

/// How long one question waits for a change.
const WAIT_MS: i64 = 30_000;
const PAUSE: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// The cursor of the end of the feed.
const NOW: &str = "now";
const NOUNS_IN_ROOMS: [Noun; 4] = [Noun::Message, Noun::Room, Noun::Member, Noun::Ban];

/// Where to begin, and what to leave out.
#[derive(Clone, Debug)]
pub struct ChangesOptions(GetChanges);

impl ChangesOptions {
    /// All changes, from the first command of the log on.
    #[must_use]
    pub fn new() -> Self {
        Self(GetChanges::new())
    }

    /// The cursor to begin after; `"now"` for the end of the feed.
    #[must_use]
    pub fn after(self, cursor: impl Into<String>) -> Self {
        Self(self.0.after(cursor))
    }

    /// Only what is in these rooms.
    #[must_use]
    pub fn rooms(self, rooms: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self(self.0.rooms(rooms))
    }

    /// Only these kinds of items.
    #[must_use]
    pub fn nouns(self, nouns: impl IntoIterator<Item = Noun>) -> Self {
        Self(self.0.nouns(nouns))
    }

    /// `false` for which items changed, and not what they are.
    #[must_use]
    pub fn values(self, values: bool) -> Self {
        Self(self.0.values(values))
    }

    /// About how many changes are read at once.
    #[must_use]
    pub fn limit(self, limit: i64) -> Self {
        Self(self.0.limit(limit))
    }
}

impl Default for ChangesOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// The changes of a scope, one after the other, for ever; made by [`Client::changes`].
///
/// [`next`](Self::next) is a method, as that of Tokio's own receivers, and not a `Stream`: whoever
/// needs one makes it with `futures::stream::unfold`.
#[derive(Debug)]
pub struct Changes {
    feed: Feed,
    query: GetChanges,
    has_begun: bool,
    cursor: Option<String>,
    /// What was read and not given out yet, and the cursor after it.
    page: VecDeque<ItemChange>,
    page_cursor: String,
}

/// A result of a watched query.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Watched<T> {
    /// The result.
    pub result: T,
    /// The number of the scope's commit that it reflects.
    pub seq: i64,
    /// The scope has another history than at the result before, and may have fewer commits.
    pub gap: bool,
}

/// The results of a query, now and whenever it has changed, for ever; made by [`Client::watch`].
#[derive(Debug)]
pub struct Watch<Q> {
    feed: Feed,
    query: Q,
    /// What to ask to learn that the result may be another one.
    question: GetChanges,
    has_begun: bool,
    /// It is older than any later result.
    cursor: String,
    /// The result may be another one than the one given out last.
    is_stale: bool,
    gap: bool,
    given: Option<Vec<u8>>,
    newest_seq: i64,
}

impl Client {
    /// Follow the feed for ever: what changed after a cursor, in order, and what changes next.
    ///
    /// Without a cursor it begins with the first command of the log, with `"now"` at the end of the
    /// feed. Store [`Changes::cursor`] together with what was applied, and begin there the next
    /// time. To start without the history and lose nothing, first store the `cursor` of
    /// `get_changes(GetChanges::new().after("now"))`, and begin there.
    ///
    /// ```no_run
    /// # async fn example(client: backscroll::Client) -> Result<(), backscroll::Error> {
    /// use backscroll::{ChangesOptions, records::ItemValue};
    ///
    /// let mut changes = client.changes(ChangesOptions::new().after("now"));
    /// while let Some(change) = changes.next().await? {
    ///     if let Some(ItemValue::Message(message)) = change.value {
    ///         println!("{}", message.content);
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn changes(&self, options: ChangesOptions) -> Changes {
        let mut query = options.0.wait_ms(WAIT_MS);
        let cursor = query.after.take();
        let page_cursor = String::new();
        Changes {
            feed: Feed::new(self),
            query,
            has_begun: false,
            cursor,
            page: VecDeque::new(),
            page_cursor,
        }
    }

    /// The result of a query, now and whenever it has changed, for ever.
    ///
    /// A slow reader gets the newest result and misses those between; a result is never older than
    /// the one before it. That only time passes is not noticed. The daemon lets 64 wait for one
    /// client: where there are more, each may notice a change a second later.
    ///
    /// ```no_run
    /// # async fn example(client: backscroll::Client) -> Result<(), backscroll::Error> {
    /// use backscroll::operations::GetMessagePage;
    ///
    /// let mut pages = client.watch(GetMessagePage::new("home"));
    /// while let Some(watched) = pages.next().await? {
    ///     println!("{} messages", watched.result.messages.len());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn watch<Q: Query>(&self, query: Q) -> Watch<Q> {
        let mut question = GetChanges::new().values(false).wait_ms(WAIT_MS);
        if !Q::READS.is_empty() {
            question = question.nouns(Q::READS.iter().cloned());
            let is_in_room = Q::READS.iter().all(|noun| NOUNS_IN_ROOMS.contains(noun));
            question.rooms = query
                .room_id()
                .filter(|_| is_in_room)
                .map(|room| vec![room.to_owned()]);
        }
        Watch {
            feed: Feed::new(self),
            query,
            question,
            has_begun: false,
            cursor: String::new(),
            is_stale: true,
            gap: false,
            given: None,
            newest_seq: 0,
        }
    }
}

impl Changes {
    /// The next change; `None` when the client was closed. Nothing is lost if the future is
    /// dropped.
    ///
    /// # Errors
    ///
    /// If no daemon answers at the start. Later it goes on by itself when the daemon was restarted
    /// or could not answer for a while. [`FeedGap`](Code::FeedGap) means that the cursor is of
    /// another history of the scope.
    pub async fn next(&mut self) -> Result<Option<ItemChange>, Error> {
        let next = self.wait_for_next().await;
        self.feed.unless_closed(next)
    }

    /// Where to begin the next time: after the latest page of changes of which all were given out.
    /// `None` at the beginning of the feed.
    #[must_use]
    pub fn cursor(&self) -> Option<&str> {
        self.cursor.as_deref().filter(|&cursor| cursor != NOW)
    }

    /// Whether [`cursor`](Self::cursor) is after the latest change, and not after one before it.
    #[must_use]
    pub fn is_at_page_end(&self) -> bool {
        self.page.is_empty()
    }

    async fn wait_for_next(&mut self) -> Result<ItemChange, Error> {
        if !self.has_begun {
            self.feed.begin().await?;
            if self.cursor.as_deref() == Some(NOW) {
                self.cursor = Some(self.feed.now().await?);
            }
            self.has_begun = true;
        }
        loop {
            if let Some(change) = self.page.pop_front() {
                if self.page.is_empty() {
                    self.cursor = Some(std::mem::take(&mut self.page_cursor));
                }
                return Ok(change);
            }
            self.query.after.clone_from(&self.cursor);
            let page = self.feed.next_page(&self.query).await?;
            if page.gap == Some(true) {
                return Err(gap(&page.cursor));
            }
            if page.changes.is_empty() {
                self.cursor = Some(page.cursor);
            } else {
                self.page = page.changes.into();
                self.page_cursor = page.cursor;
            }
        }
    }
}

fn gap(cursor: &str) -> Error {
    let message = "the cursor belongs to another history of this scope, because its files were \
                   restored from a copy or it was deleted: read everything anew, and then go on \
                   with `changes` after the error's `cursor`";
    Error::new(Code::FeedGap, message).with_detail("cursor", cursor)
}

impl<Q: Query> Watch<Q> {
    /// The next result; `None` when the client was closed. Nothing is lost if the future is
    /// dropped.
    ///
    /// # Errors
    ///
    /// Those of the query; and if no daemon answers at the start. Later it goes on by itself.
    pub async fn next(&mut self) -> Result<Option<Watched<Q::Output>>, Error> {
        let next = self.wait_for_next().await;
        self.feed.unless_closed(next)
    }

    async fn wait_for_next(&mut self) -> Result<Watched<Q::Output>, Error> {
        if !self.has_begun {
            self.feed.begin().await?;
            // First, so that what changes while the query is answered is asked for afterwards.
            self.cursor = self.feed.now().await?;
            self.has_begun = true;
        }
        loop {
            while !self.is_stale {
                self.wait_for_change().await?;
            }
            let answer = self.feed.ask(&self.query).await?;
            self.is_stale = false;
            // Requests are answered in order, so only another history has a lower one.
            let gap = std::mem::take(&mut self.gap) || answer.seq < self.newest_seq;
            self.newest_seq = answer.seq;
            if gap || self.given.as_deref() != Some(answer.bytes()) {
                self.given = Some(answer.bytes().to_vec());
                return Ok(Watched {
                    result: answer.decode()?,
                    seq: answer.seq,
                    gap,
                });
            }
        }
    }

    async fn wait_for_change(&mut self) -> Result<(), Error> {
        self.question.after = Some(self.cursor.clone());
        let page = self.feed.next_page(&self.question).await?;
        self.cursor = page.cursor;
        self.gap = page.gap == Some(true);
        self.is_stale = self.gap || page.more || !page.changes.is_empty();
        if page.more && !self.gap {
            self.skip_to_now().await?;
        }
        Ok(())
    }

    /// Leave out the changes that there are until now. That the old cursor still fits shows that
    /// this is no gap.
    async fn skip_to_now(&mut self) -> Result<(), Error> {
        let now = self.feed.now().await?;
        let mut question = self.question.clone().limit(1).wait_ms(0);
        question.after = Some(self.cursor.clone());
        let page: ChangePage = self.feed.ask(&question).await?.decode()?;
        self.gap = page.gap == Some(true);
        self.cursor = if self.gap { page.cursor } else { now };
        Ok(())
    }
}

/// Asks for what follows a scope; longer pauses follow questions that brought nothing, until one
/// does.
#[derive(Debug)]
struct Feed {
    client: Client,
    pause: Duration,
}

impl Feed {
    fn new(client: &Client) -> Self {
        Self {
            client: client.clone(),
            pause: PAUSE,
        }
    }

    /// Whether a daemon answers at all.
    async fn begin(&self) -> Result<(), Error> {
        self.client.send(Ping::new()).await.map(|_| ())
    }

    /// The answer to a query, however long the daemon is away; an error that waiting does not end.
    async fn ask<O: Operation>(&self, query: &O) -> Result<Encoded, Error> {
        let mut pause = PAUSE;
        loop {
            match self.client.ask(query, &RequestOptions::new()).await {
                Err(error) if self.is_passing(&error) => sleep(pause).await,
                outcome => return outcome,
            }
            pause = (2 * pause).min(PAUSE_MAX);
        }
    }

    fn is_passing(&self, error: &Error) -> bool {
        (error.is_retryable() || *error.code() == Code::NoReply) && !self.client.is_closed()
    }

    /// The cursor at the end of the feed.
    async fn now(&self) -> Result<String, Error> {
        let page: ChangePage = self.ask(&GetChanges::new().after(NOW)).await?.decode()?;
        Ok(page.cursor)
    }

    /// The page after a cursor. Where an empty one came long before its time, the daemon has too
    /// many that wait.
    async fn next_page(&mut self, query: &GetChanges) -> Result<ChangePage, Error> {
        let begun = Instant::now();
        let page: ChangePage = self.ask(query).await?.decode()?;
        let is_early = begun.elapsed().as_millis() <= WAIT_MS as u128 / 2;
        if is_early && page.changes.is_empty() && !page.more && page.gap != Some(true) {
            sleep(self.pause).await;
            self.pause = (2 * self.pause).min(PAUSE_MAX);
        } else {
            self.pause = PAUSE;
        }
        Ok(page)
    }

    /// What was waited for, or `None` if the client was closed meanwhile.
    fn unless_closed<T>(&self, outcome: Result<T, Error>) -> Result<Option<T>, Error> {
        match outcome {
            Err(_) if self.client.is_closed() => Ok(None),
            outcome => outcome.map(Some),
        }
    }
}
