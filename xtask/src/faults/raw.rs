//! A server that speaks whatever it is told to, and no HTTP unless that is some.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Longer than any connection of a pull.
const LONGEST: Duration = Duration::from_secs(60);

/// What comes after the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Nothing; the connection is closed.
    Once,
    /// The last line again and again, as fast as somebody reads.
    Flood,
    /// The last line again, a thousand times a second.
    Steady,
}

/// Answers each request with the same bytes. Dropping it ends it.
pub struct RawServer {
    address: SocketAddr,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl RawServer {
    /// Starts one.
    pub fn start(bytes: Vec<u8>, end: End) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let (address, stopped) = (listener.local_addr()?, Arc::new(AtomicBool::new(false)));
        let stop = Arc::clone(&stopped);
        let thread = std::thread::spawn(move || {
            let mut connections = Vec::new();
            for stream in listener.incoming().flatten() {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                let (bytes, stop) = (bytes.clone(), Arc::clone(&stop));
                connections.push(std::thread::spawn(move || answer(stream, &bytes, end, &stop).ok()));
            }
            for connection in connections {
                connection.join().ok();
            }
        });
        Ok(Self { address, stopped, thread: Some(thread) })
    }

    /// `127.0.0.1:PORT`, as image names begin.
    pub fn host(&self) -> String {
        self.address.to_string()
    }
}

impl Drop for RawServer {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        // It waits for a connection; this is one.
        TcpStream::connect(self.address).ok();
        self.thread.take().map(|thread| thread.join().ok());
    }
}

fn answer(mut stream: TcpStream, bytes: &[u8], end: End, stop: &AtomicBool) -> std::io::Result<()> {
    stream.set_read_timeout(Some(LONGEST))?;
    stream.set_write_timeout(Some(Duration::from_secs(1)))?;
    // A request without a body fits; what matters is that one has come.
    let _ = stream.read(&mut [0; 4096])?;
    stream.write_all(bytes)?;
    // All of it where it is one line.
    let line = bytes.rsplitn(3, |&byte| byte == b'\n').find(|line| line.len() > 2).unwrap_or(bytes);
    let repeated: Vec<u8> = if bytes.ends_with(b"\n") {
        if bytes.ends_with(b"\r\n\r\n") { bytes.to_vec() } else { [line, b"\n"].concat() }
    } else {
        line.to_vec()
    };
    // Many lines at a time: it is the reader that is to be kept busy.
    let repeated =
        if end == End::Flood { repeated.repeat(1 + (16 << 10) / repeated.len()) } else { repeated };
    while end != End::Once && !stop.load(Ordering::SeqCst) {
        stream.write_all(&repeated)?;
        if end == End::Steady {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    Ok(())
}
