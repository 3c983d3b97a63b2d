//! An answer that is made while it is read: nothing of it is made before its reader wants it, and when the
//! reader goes away, so does whatever makes it.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use hyper::body::Frame;

use super::listen::lock;
use crate::store::StoreError;

type Work = Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send>>;

/// Where the pieces of an answer go.
pub(super) struct Lines {
    next: Arc<Mutex<Option<Bytes>>>,
}

/// The body of such an answer.
struct Reader {
    next: Arc<Mutex<Option<Bytes>>>,
    /// None at the end.
    work: Option<Work>,
    /// Why it has ended, where it was not done.
    broken: Option<StoreError>,
}

impl Lines {
    /// Hands a piece over, and waits until the one before it has been taken.
    pub(super) async fn send(&self, piece: Bytes) {
        let mut piece = Some(piece);
        poll_fn(|_| {
            let mut next = lock(&self.next);
            if next.is_some() {
                // Nobody has to be told when there is room: the reader polls this work, and does so once it
                // has taken the piece.
                return Poll::Pending;
            }
            *next = piece.take();
            Poll::Ready(())
        })
        .await;
    }
}

/// An answer out of the pieces that some work sends.
pub(super) fn read<F>(work: impl FnOnce(Lines) -> F) -> Body
where
    F: Future<Output = Result<(), StoreError>> + Send + 'static,
{
    let next = Arc::default();
    let work = work(Lines { next: Arc::clone(&next) });
    Body::new(Reader { next, work: Some(Box::pin(work)), broken: None })
}

impl HttpBody for Reader {
    type Data = Bytes;
    type Error = StoreError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StoreError>>> {
        loop {
            let next = lock(&self.next).take();
            if let Some(piece) = next {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            let Some(work) = &mut self.work else {
                // The answer breaks off, which the client can tell from its end.
                return Poll::Ready(self.broken.take().map(Err));
            };
            let polled = work.as_mut().poll(cx);
            match polled {
                Poll::Ready(result) => {
                    self.work = None;
                    self.broken = result.err();
                }
                Poll::Pending if lock(&self.next).is_none() => return Poll::Pending,
                Poll::Pending => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn no_piece_is_made_before_it_is_wanted() {
        let made = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&made);
        let mut body = read(|lines| async move {
            for number in 0..5 {
                count.fetch_add(1, Ordering::Relaxed);
                lines.send(Bytes::from(vec![number])).await;
                tokio::task::yield_now().await;
            }
            Ok(())
        });
        for number in 0..5 {
            assert!(made.load(Ordering::Relaxed) <= usize::from(number) + 1);
            let piece = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert_eq!(piece[0], number);
        }
        assert!(body.frame().await.is_none());
    }

    #[tokio::test]
    async fn an_answer_breaks_off_behind_its_last_piece() {
        let mut body = read(|lines| async move {
            lines.send(Bytes::from_static(b"a")).await;
            Err(StoreError::NotFound)
        });
        assert!(body.frame().await.unwrap().is_ok());
        assert!(body.frame().await.unwrap().is_err());
        assert!(body.frame().await.is_none());
    }
}
