//! What one tenant, a stranger, a broken row or the machine does to the router is felt by nobody else.

mod blame; // what is wrong with the router itself
mod compiler; // a compiler that is watched
mod connections; // so many of them, and those that say nothing
mod kept; // kept connections that turn out dead
mod lanes; // code that is made, and configurations that are checked
mod lost; // code that is made anew
mod memory; // bodies and answers of the API, counted by bytes
mod names; // names that nobody answers for
mod output; // bodies that would be very large
mod pause; // a process that is stopped for a while
mod quiet; // the neighbour of all of them
mod quotas; // how much a tenant may have
pub(crate) mod raw; // one connection to the API, byte by byte
mod rows; // rows of the store that a disk has damaged
mod runs; // what runs of plugins take, all of it
mod shares; // what is kept for each tenant
mod strangers; // calls without a token, half of a call, or too much of it
mod work; // bodies that make much of little

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// The body of a request; none where the connection has ended.
pub(crate) async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut text = String::new();
    loop {
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.to_ascii_lowercase();
            let length = length.split("content-length: ").nth(1).unwrap();
            if body.len() >= length.lines().next().unwrap().parse().unwrap() {
                return Some(body.to_owned());
            }
        }
        let mut more = [0; 4_096];
        match stream.read(&mut more).await {
            Ok(0) | Err(_) => return None,
            Ok(count) => text.push_str(std::str::from_utf8(&more[..count]).unwrap()),
        }
    }
}
