use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// A name server that says of every name that it is at 127.0.0.1. On an address of loopback that is its own, since
/// the C library asks on port 53 and no other.
pub struct NameServer {
    pub address: IpAddr,
    questions: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl NameServer {
    pub fn start() -> Self {
        let socket = (0..100)
            .find_map(|_| {
                let address =
                    Ipv4Addr::new(127, fastrand::u8(1..255), fastrand::u8(..), fastrand::u8(1..255));
                UdpSocket::bind(SocketAddr::from((address, 53))).ok()
            })
            .expect("the test runs as root, so that it may bind port 53");
        // How soon it sees that it is to stop.
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let (questions, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let address = socket.local_addr().unwrap().ip();
        let (counter, stopped) = (questions.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let mut question = [0; 512];
            while !stopped.load(Ordering::Relaxed) {
                let Ok((size, from)) = socket.recv_from(&mut question) else { continue };
                counter.fetch_add(1, Ordering::Relaxed);
                socket.send_to(&answer(&question[..size]), from).unwrap();
            }
        });
        Self { address, questions, stop, thread: Some(thread) }
    }

    /// How many it has been asked.
    pub fn questions(&self) -> usize {
        self.questions.load(Ordering::Relaxed)
    }
}

/// RFC 1035, section 4: the header, the one question, and an address if that is what was asked for.
fn answer(message: &[u8]) -> Vec<u8> {
    let (id, question) = (&message[..2], &message[12..]);
    let name = question.iter().position(|&byte| byte == 0).unwrap();
    let question = &question[..name + 5];
    let asks_for_ipv4 = question[name + 1..name + 3] == [0, 1];
    let mut answer = [id, &[0x81, 0x80, 0, 1, 0, asks_for_ipv4.into(), 0, 0, 0, 0], question].concat();
    if asks_for_ipv4 {
        // The name of the question, type A, class IN, for a minute, four bytes.
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
    }
    answer
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}
