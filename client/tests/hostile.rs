//! Brokers that lie, hang or are none: a typed error that says what happened, never a panic, and
//! no memory on the word of a length.

#![allow(
    clippy::unwrap_used,
    reason = "a test may panic, and so may its helpers"
)]

use std::time::Duration;

use highwater_client::{CallError, Client, ConnectError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// What a broker says, whatever it is asked.
#[derive(Clone)]
enum Script {
    Say(Vec<u8>),
    Close,
    Hang,
}

async fn start(script: Script) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let script = script.clone();
            tokio::spawn(async move {
                let mut asked = [0; 1_024];
                while stream.read(&mut asked).await.is_ok_and(|count| count > 0) {
                    match &script {
                        Script::Say(bytes) => stream.write_all(bytes).await.unwrap(),
                        Script::Close => return,
                        Script::Hang => {}
                    }
                }
            });
        }
    });
    address
}

async fn connect(script: Script) -> CallError {
    let address = start(script).await;
    let connected = Client::builder()
        .bootstrap(&address)
        .tcp()
        .connect_timeout(Duration::from_millis(300))
        .connect()
        .await;
    let error = connected.unwrap_err();
    assert!(error.to_string().contains(&address), "{error}");
    error
}

/// The reason inside of "no broker can be reached".
fn reason(error: CallError) -> String {
    let CallError::Connect(ConnectError::Bootstrap(inner)) = error else {
        panic!("{error}");
    };
    match *inner {
        ConnectError::Handshake { source, .. } => source.to_string(),
        other => other.to_string(),
    }
}

async fn check(script: Script, expected: &str) {
    let reason = reason(connect(script).await);
    assert!(reason.contains(expected), "{reason}");
}

#[tokio::test]
async fn a_broker_that_closes() {
    check(Script::Close, "the broker closed it").await;
}

#[tokio::test]
async fn a_broker_that_hangs() {
    check(Script::Hang, "did not answer within 300ms").await;
}

#[tokio::test]
async fn a_length_of_two_gigabytes() {
    let huge = [&i32::MAX.to_be_bytes()[..], &[0; 8]].concat();
    check(Script::Say(huge), "exceeds the limit").await;
}

#[tokio::test]
async fn a_negative_length() {
    check(Script::Say(vec![0xff; 8]), "is negative").await;
}

#[tokio::test]
async fn an_answer_to_another_request() {
    let other = b"\0\0\0\x06\0\0\0\x63\0\0".to_vec();
    check(Script::Say(other), "response 99 came where 0 was due").await;
}

#[tokio::test]
async fn an_answer_too_short_for_its_header() {
    check(
        Script::Say(b"\0\0\0\x01x".to_vec()),
        "4 bytes are announced",
    )
    .await;
}

#[tokio::test]
async fn a_web_server() {
    let page = b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec();
    check(Script::Say(page), "exceeds the limit").await;
}

#[tokio::test]
async fn addresses_that_are_none() {
    for (bootstrap, expected) in [
        ("", "no broker to start from: give at least one host:port"),
        (
            "localhost",
            "\"localhost\" is not an address: write host:port",
        ),
    ] {
        let error = Client::builder().bootstrap(bootstrap).tcp().connect().await;
        assert_eq!(error.unwrap_err().to_string(), expected);
    }
}
