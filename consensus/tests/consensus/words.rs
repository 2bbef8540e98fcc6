//! Outputs and messages in few words, for traces.

use highwater_consensus::{AppendOutcome, EntryKind, EntryMeta, Lane, Message, NodeId, Output};

use crate::suite::cluster::Content;

/// An output of `n`.
pub(crate) fn output(n: NodeId, output: &Output) -> String {
    let words = match output {
        Output::HardState { write, term, vote } => {
            let vote = vote.map_or("nobody".to_owned(), |vote| vote.to_string());
            format!("write {}: hard state {term}, vote {vote}", write.0)
        }
        Output::Append { write, entries } => {
            format!("write {}: append {}", write.0, list(entries))
        }
        Output::Cut { write, first } => format!("write {}: cut from {first}", write.0),
        Output::Base { write, before } => format!("write {}: base after {before}", write.0),
        Output::Send {
            to, lane, message, ..
        } => {
            let lane = match lane {
                Lane::Bulk => ", bulk lane",
                Lane::Append | Lane::Control => "",
            };
            format!("to {to}{lane}: {}", self::message(message))
        }
        Output::Committed { index } => format!("committed {index}"),
        Output::ReadReady { read, index } => format!("read {} may be answered at {index}", read.0),
        Output::ReadFailed { read } => format!("read {} failed", read.0),
        Output::RoleChanged { term, role, leader } => {
            let leader = leader.map_or("nobody".to_owned(), |leader| leader.to_string());
            format!("is {role:?} in {term}, leader {leader}")
        }
        Output::CatchUp { to, next, .. } => format!("read for {to} from {next}"),
        Output::BeatWanted => "beat wanted".to_owned(),
        Output::TransferEnded { to } => format!("transfer to {to} ended"),
        Output::QuarantineEnded => "quarantine ended".to_owned(),
    };
    format!("{n} {words}")
}

/// Something on its way.
pub(crate) fn content(content: &Content) -> String {
    match content {
        Content::Message(message, _) => self::message(message),
        Content::Beat(_, row) => {
            format!(
                "beat {}, last {}, commit {}",
                row.term, row.last, row.commit
            )
        }
        Content::BeatAck(_, None) => "beat answered".to_owned(),
        Content::BeatAck(_, Some(exception)) => format!("beat answered: {exception:?}"),
    }
}

fn message(message: &Message) -> String {
    let yes = |granted: &bool| if *granted { "granted" } else { "refused" };
    match message {
        Message::PreVote { term, last } => format!("pre-vote for {term}, last {last}?"),
        Message::PreVoteReply { term, granted } => format!("pre-vote {} {term}", yes(granted)),
        Message::Vote {
            term,
            last,
            transfer,
        } => {
            let transfer = if *transfer { ", by transfer" } else { "" };
            format!("vote for {term}, last {last}{transfer}?")
        }
        Message::VoteReply { term, granted } => format!("vote {} {term}", yes(granted)),
        Message::Append {
            term,
            window,
            previous,
            entries,
            commit,
        } => {
            let entries = list(entries);
            format!("{term} window {window}: after {previous} {entries}, commit {commit}")
        }
        Message::AppendReply {
            term,
            window,
            outcome,
        } => format!("{term} window {window}: {}", self::outcome(outcome)),
        Message::Base {
            term,
            window,
            before,
        } => format!("{term} window {window}: base after {before}"),
        Message::TimeoutNow { term } => format!("{term}: campaign now"),
    }
}

fn outcome(outcome: &AppendOutcome) -> String {
    match outcome {
        AppendOutcome::Accepted {
            matched,
            synced,
            promised,
        } => format!("matched {matched}, synced {synced}, promised {promised}"),
        AppendOutcome::Conflict { at, first } => format!("has {at}, that term from {first}"),
        AppendOutcome::Busy { last } => format!("no room, has {last}"),
        AppendOutcome::Stale => "your term is over".to_owned(),
    }
}

fn list(entries: &[EntryMeta]) -> String {
    let word = |meta: &EntryMeta| match meta.kind {
        EntryKind::Noop => format!("{} no-op", meta.id),
        _ => meta.id.to_string(),
    };
    let words: Vec<String> = entries.iter().map(word).collect();
    format!("[{}]", words.join(", "))
}
