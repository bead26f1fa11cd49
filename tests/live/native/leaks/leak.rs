//! Caches 1,000 requests a second without a bound; a line is answered by how many so far.
use std::collections::HashMap;
use std::io::BufRead;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

static HANDLED: AtomicU64 = AtomicU64::new(0);
static DESCRIBED: AtomicU64 = AtomicU64::new(0);

#[inline(never)]
fn handle_request(number: u64, cache: &mut HashMap<u64, Vec<u8>>) {
    cache.insert(number, vec![(number % 251) as u8; 700]);
}

#[inline(never)]
fn describe(number: u64) -> u64 {
    let mut text = String::new();
    for item in 0..5 {
        text.push_str(&format!("item {} {};", item, number));
    }
    text.len() as u64
}

fn serve() {
    let mut cache = HashMap::new();
    loop {
        for _ in 0..10 {
            let number = HANDLED.fetch_add(1, Ordering::SeqCst);
            handle_request(number, &mut cache);
            DESCRIBED.fetch_add(describe(number), Ordering::SeqCst);
        }
        thread::sleep(Duration::from_millis(10));
    }
}

fn main() {
    thread::spawn(serve);
    println!("ready");
    for _ in std::io::stdin().lock().lines() {
        println!("{}", HANDLED.load(Ordering::SeqCst));
    }
}
