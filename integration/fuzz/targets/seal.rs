#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| haulout_fuzz::run("seal", input));
