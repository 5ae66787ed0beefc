//! Which instruction set the kernels use, chosen at run time.
//!
//! Also the one place that calls element-wise code compiled for an instruction
//! set: such code is written once, as safe Rust, and `compiled_for!` compiles it
//! anew for each kind of vectors.

/// An implementation for one instruction set.
///
/// A value of it is proof that the processor has the instructions: only
/// [`Variant::available`] and what is made of it give one other than scalar.
///
/// # Examples
/// ```
/// use inwarden_kernels::Variant;
///
/// let fastest = Variant::detect();
/// assert_eq!(Variant::named(fastest.name()), Some(fastest));
/// assert_eq!(Variant::named("scalar"), Some(Variant::SCALAR));
/// assert_eq!(Variant::named("abacus"), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Variant(Kind);

/// What a [`Variant`] stands for; the kernels match on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// Any processor.
    Scalar,
    /// avx2 and fma.
    Avx2,
    /// avx2, fma and avxvnni.
    AvxVnni,
    /// avx512f, avx512bw, avx512dq, avx512vl and avx512vnni.
    Avx512Vnni,
    /// As [`Kind::Avx512Vnni`], and avx512bf16.
    Avx512VnniBf16,
}

impl Variant {
    /// Plain Rust, on any processor: the reference.
    pub const SCALAR: Self = Self(Kind::Scalar);

    /// What this processor can run, fastest first; the last is the scalar one.
    #[must_use]
    pub fn available() -> Vec<Self> {
        let mut variants = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            let avx512 = avx2
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512vnni");
            if avx512 && is_x86_feature_detected!("avx512bf16") {
                variants.push(Self(Kind::Avx512VnniBf16));
            }
            if avx512 {
                variants.push(Self(Kind::Avx512Vnni));
            }
            if avx2 && is_x86_feature_detected!("avxvnni") {
                variants.push(Self(Kind::AvxVnni));
            }
            if avx2 {
                variants.push(Self(Kind::Avx2));
            }
        }
        variants.push(Self::SCALAR);
        variants
    }

    /// The fastest variant this processor can run.
    #[must_use]
    pub fn detect() -> Self {
        Self::available()[0]
    }

    /// The variant of this name, if this processor can run it.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::available().into_iter().find(|v| v.name() == name)
    }

    /// Its name: `avx512-vnni-bf16`, `avx512-vnni`, `avx-vnni`, `avx2` or
    /// `scalar`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self.0 {
            Kind::Scalar => "scalar",
            Kind::Avx2 => "avx2",
            Kind::AvxVnni => "avx-vnni",
            Kind::Avx512Vnni => "avx512-vnni",
            Kind::Avx512VnniBf16 => "avx512-vnni-bf16",
        }
    }

    pub(crate) fn kind(self) -> Kind {
        self.0
    }
}

/// Calls an `#[inline(always)]` function, compiled for the vectors of `variant`.
///
/// `compiled_for!(variant, scale(rows: &mut [f32], factor: f32))` calls
/// `scale(rows, factor)`; the arguments are variables of these names. The
/// function must not depend on the order in which the compiler adds numbers, so
/// that all variants give bitwise the same: it fixes its lanes and spells out
/// each `mul_add`.
macro_rules! compiled_for {
    ($variant:expr, $body:ident($($arg:ident: $type:ty),* $(,)?) $(-> $out:ty)?) => {{
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma")]
        fn avx2($($arg: $type),*) $(-> $out)? {
            $body($($arg),*)
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
        fn avx512($($arg: $type),*) $(-> $out)? {
            $body($($arg),*)
        }
        #[cfg_attr(
            target_arch = "x86_64",
            expect(unsafe_code, reason = "the call into code for an instruction set")
        )]
        fn dispatch(variant: $crate::variant::Variant, $($arg: $type),*) $(-> $out)? {
            match variant.kind() {
                #[cfg(target_arch = "x86_64")]
                $crate::variant::Kind::Avx2 | $crate::variant::Kind::AvxVnni => {
                    // SAFETY: `Variant::available` makes these kinds only after
                    // it has found avx2 and fma on this processor.
                    unsafe { avx2($($arg),*) }
                }
                #[cfg(target_arch = "x86_64")]
                $crate::variant::Kind::Avx512Vnni | $crate::variant::Kind::Avx512VnniBf16 => {
                    // SAFETY: `Variant::available` makes these kinds only after
                    // it has found each of these features on this processor.
                    unsafe { avx512($($arg),*) }
                }
                _ => $body($($arg),*),
            }
        }
        dispatch($variant, $($arg),*)
    }};
}
pub(crate) use compiled_for;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// What the kernel says the processor has, read without our detection.
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    fn cpuinfo_flags() -> Vec<String> {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").expect("Linux has it");
        let flags = cpuinfo.lines().find_map(|line| {
            let (name, flags) = line.split_once(':')?;
            (name.trim() == "flags").then_some(flags)
        });
        let flags = flags.expect("a processor has flags").split_whitespace();
        flags.map(str::to_owned).collect()
    }

    /// The names of the variants that run here, according to the kernel.
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    pub(crate) fn supported() -> Vec<&'static str> {
        const AVX512: [&str; 7] = [
            "avx2",
            "fma",
            "avx512f",
            "avx512bw",
            "avx512dq",
            "avx512vl",
            "avx512_vnni",
        ];
        let flags = cpuinfo_flags();
        let has = |names: &[&str]| names.iter().all(|name| flags.iter().any(|f| f == name));
        let mut names = Vec::new();
        if has(&AVX512) && has(&["avx512_bf16"]) {
            names.push("avx512-vnni-bf16");
        }
        if has(&AVX512) {
            names.push("avx512-vnni");
        }
        if has(&["avx2", "fma", "avx_vnni"]) {
            names.push("avx-vnni");
        }
        if has(&["avx2", "fma"]) {
            names.push("avx2");
        }
        names.push("scalar");
        names
    }

    #[test]
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    fn every_variant_that_the_processor_supports_is_available() {
        let available: Vec<_> = Variant::available().iter().map(|v| v.name()).collect();
        assert_eq!(available, supported());
    }
}
