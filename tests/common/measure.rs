//! `bench --json`, run and read.

use serde_json::{Value, json};

use super::command;

/// Runs `bench --json`: its exit status, what it measured, and its stderr.
#[track_caller]
pub fn bench(address: impl ToString, arguments: &[&str]) -> (i32, Value, String) {
    bench_for(address, "20s", arguments)
}

/// The same, with a time-out that is soon over.
#[track_caller]
pub fn bench_with_short_timeout(address: impl ToString, arguments: &[&str]) -> (i32, Value, String) {
    bench_for(address, "500ms", arguments)
}

#[track_caller]
fn bench_for(address: impl ToString, timeout: &str, arguments: &[&str]) -> (i32, Value, String) {
    let address = address.to_string();
    let (code, stdout, stderr) =
        command(&[&["bench", "--json", &address, "--timeout", timeout], arguments].concat());
    let json = serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("no JSON in {stdout:?}; {stderr}"));
    (code, json, stderr)
}

pub fn errors(wrong: u64, lost: u64, refused: u64, reset: u64, timeout: u64) -> Value {
    json!({"wrong": wrong, "lost": lost, "refused": refused, "reset": reset, "timeout": timeout})
}

pub fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

pub fn sum(list: &Value) -> u64 {
    list.as_array().unwrap_or_else(|| panic!("{list} is no list")).iter().filter_map(Value::as_u64).sum()
}
