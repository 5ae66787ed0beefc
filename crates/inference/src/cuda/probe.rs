//! What NVIDIA hardware this host has, asked without linking CUDA.
//!
//! The driver (`libcuda.so.1`) and its management library (`libnvidia-ml.so.1`)
//! are opened by name when they are asked for, so a build without CUDA can say
//! what is there and what is missing. Nothing is computed on the card here.
//!
//! Sources: `cuda.h` (driver interface) and `nvml.h`, whose functions of these
//! names have kept their signatures since CUDA 4 and driver 319.

#![expect(
    unsafe_code,
    reason = "calls into libraries of the driver that are opened by name"
)]

use std::{
    ffi::{CStr, c_char, c_int, c_uint, c_void},
    fmt,
    ptr::null_mut,
};

use libloading::Library;

use super::error::GpuError;

/// One NVIDIA card as its driver describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Gpu {
    /// The product's name.
    pub name: String,
    /// Which instruction set its processors have.
    pub compute_capability: ComputeCapability,
    /// Memory on the card in bytes.
    pub memory_total_bytes: u64,
    /// What the management library says now; `None` without that library.
    pub telemetry: Option<Telemetry>,
}

/// The instruction set of a card, such as 8.9 for an L4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ComputeCapability {
    /// The number before the dot.
    pub major: u32,
    /// The number behind the dot.
    pub minor: u32,
}

/// The state of a card at one moment; `None` for what it does not report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Telemetry {
    /// Memory in use by all processes, in bytes.
    pub memory_used_bytes: Option<u64>,
    /// Temperature of the chip in degrees Celsius.
    pub temperature_celsius: Option<u32>,
    /// Power drawn in milliwatts.
    pub power_milliwatts: Option<u32>,
    /// Part of the last sample period in which the card computed, `0..=100`.
    pub utilisation_percent: Option<u32>,
}

/// The NVIDIA cards of this host, in the driver's order; none is an empty list.
///
/// # Errors
/// [`GpuError::NoDriver`] if the driver is not installed, [`GpuError::Driver`]
/// if it refuses to start or to describe a card.
pub fn gpus() -> Result<Vec<Gpu>, GpuError> {
    let driver = Driver::open()?;
    // Without the management library the cards are listed without telemetry.
    let management = Management::open().ok();
    driver.gpus(management.as_ref())
}

impl ComputeCapability {
    /// From the number without a dot that build settings use: 89 is 8.9.
    #[must_use]
    pub fn from_number(number: u32) -> Self {
        Self {
            major: number / 10,
            minor: number % 10,
        }
    }
}

impl fmt::Display for ComputeCapability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl fmt::Display for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const GIB: f64 = (1_u64 << 30) as f64;
        let total = self.memory_total_bytes as f64 / GIB;
        let capability = self.compute_capability;
        write!(f, "{}, compute capability {capability}, ", self.name)?;
        let Some(now) = self.telemetry else {
            return write!(
                f,
                "{total:.1} GiB, no telemetry (libnvidia-ml.so.1 is absent)"
            );
        };
        if let Some(used) = now.memory_used_bytes {
            write!(f, "{:.1} of ", used as f64 / GIB)?;
        }
        write!(f, "{total:.1} GiB")?;
        if let Some(percent) = now.utilisation_percent {
            write!(f, ", {percent} % busy")?;
        }
        if let Some(degrees) = now.temperature_celsius {
            write!(f, ", {degrees} °C")?;
        }
        match now.power_milliwatts {
            Some(power) => write!(f, ", {:.1} W", f64::from(power) / 1000.0),
            None => Ok(()),
        }
    }
}

/// `CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR` and `_MINOR`.
const CAPABILITY: [c_int; 2] = [75, 76];
/// `NVML_TEMPERATURE_GPU`.
const TEMPERATURE_GPU: c_uint = 0;
/// Longer than any product name or bus address.
const TEXT_BYTES: u8 = 96;
/// What a call answers that did what it should, in both libraries.
const SUCCESS: c_int = 0;

/// The driver: its functions, and the library that keeps them loaded.
struct Driver {
    init: unsafe extern "C" fn(c_uint) -> c_int,
    device_count: unsafe extern "C" fn(*mut c_int) -> c_int,
    device: unsafe extern "C" fn(*mut c_int, c_int) -> c_int,
    name: unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int,
    bus_id: unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int,
    total_memory: unsafe extern "C" fn(*mut usize, c_int) -> c_int,
    attribute: unsafe extern "C" fn(*mut c_int, c_int, c_int) -> c_int,
    _library: Option<Library>,
}

impl Driver {
    fn open() -> Result<Self, GpuError> {
        let library = open("libcuda.so.1")?;
        Ok(Self {
            init: function(&library, "cuInit")?,
            device_count: function(&library, "cuDeviceGetCount")?,
            device: function(&library, "cuDeviceGet")?,
            name: function(&library, "cuDeviceGetName")?,
            bus_id: function(&library, "cuDeviceGetPCIBusId")?,
            total_memory: function(&library, "cuDeviceTotalMem_v2")?,
            attribute: function(&library, "cuDeviceGetAttribute")?,
            _library: Some(library),
        })
    }

    fn gpus(&self, management: Option<&Management>) -> Result<Vec<Gpu>, GpuError> {
        /// `CUDA_ERROR_NO_DEVICE`: a driver without a card.
        const NO_DEVICE: c_int = 100;
        // SAFETY: `cuInit` takes flags by value, which must be 0.
        let code = unsafe { (self.init)(0) };
        if code == NO_DEVICE {
            return Ok(Vec::new());
        }
        check("cuInit", code)?;
        let mut count = 0;
        // SAFETY: writes one int, to `count`, which outlives the call.
        check("cuDeviceGetCount", unsafe {
            (self.device_count)(&raw mut count)
        })?;
        (0..count)
            .map(|ordinal| self.gpu(ordinal, management))
            .collect()
    }

    fn gpu(&self, ordinal: c_int, management: Option<&Management>) -> Result<Gpu, GpuError> {
        let mut device = 0;
        // SAFETY: writes one int, to `device`, which outlives the call.
        let code = unsafe { (self.device)(&raw mut device, ordinal) };
        check("cuDeviceGet", code)?;
        let mut memory = 0;
        // SAFETY: writes one `size_t`, to `memory`, which outlives the call.
        let code = unsafe { (self.total_memory)(&raw mut memory, device) };
        check("cuDeviceTotalMem_v2", code)?;
        let name = text("cuDeviceGetName", |bytes, len| {
            // SAFETY: writes at most `len` bytes, which `bytes` points to.
            unsafe { (self.name)(bytes, len, device) }
        })?;
        let bus_id = text("cuDeviceGetPCIBusId", |bytes, len| {
            // SAFETY: writes at most `len` bytes, which `bytes` points to.
            unsafe { (self.bus_id)(bytes, len, device) }
        })?;
        Ok(Gpu {
            name,
            compute_capability: ComputeCapability {
                major: self.attribute(CAPABILITY[0], device)?,
                minor: self.attribute(CAPABILITY[1], device)?,
            },
            memory_total_bytes: memory as u64,
            telemetry: management.map(|management| management.telemetry(&bus_id)),
        })
    }

    fn attribute(&self, attribute: c_int, device: c_int) -> Result<u32, GpuError> {
        let mut value = 0;
        // SAFETY: writes one int, to `value`, which outlives the call.
        let code = unsafe { (self.attribute)(&raw mut value, attribute, device) };
        check("cuDeviceGetAttribute", code)?;
        u32::try_from(value).map_err(|_| GpuError::Driver {
            call: "cuDeviceGetAttribute",
            code: value,
        })
    }
}

/// `nvmlDevice_t`, a handle that only the library looks into.
type Handle = *mut c_void;

/// `nvmlMemory_t`, in bytes.
#[repr(C)]
#[derive(Default)]
struct Memory {
    total: u64,
    free: u64,
    used: u64,
}

/// `nvmlUtilization_t`, in percent.
#[repr(C)]
#[derive(Default)]
struct Utilisation {
    gpu: c_uint,
    memory: c_uint,
}

const _: () = assert!(size_of::<Memory>() == 24 && size_of::<Utilisation>() == 8);

/// The management library, started; ended when dropped.
struct Management {
    handle: unsafe extern "C" fn(*const c_char, *mut Handle) -> c_int,
    memory: unsafe extern "C" fn(Handle, *mut Memory) -> c_int,
    temperature: unsafe extern "C" fn(Handle, c_uint, *mut c_uint) -> c_int,
    power: unsafe extern "C" fn(Handle, *mut c_uint) -> c_int,
    utilisation: unsafe extern "C" fn(Handle, *mut Utilisation) -> c_int,
    shutdown: unsafe extern "C" fn() -> c_int,
    _library: Option<Library>,
}

impl Management {
    fn open() -> Result<Self, GpuError> {
        let library = open("libnvidia-ml.so.1")?;
        let init: unsafe extern "C" fn() -> c_int = function(&library, "nvmlInit_v2")?;
        let management = Self {
            handle: function(&library, "nvmlDeviceGetHandleByPciBusId_v2")?,
            memory: function(&library, "nvmlDeviceGetMemoryInfo")?,
            temperature: function(&library, "nvmlDeviceGetTemperature")?,
            power: function(&library, "nvmlDeviceGetPowerUsage")?,
            utilisation: function(&library, "nvmlDeviceGetUtilizationRates")?,
            shutdown: function(&library, "nvmlShutdown")?,
            _library: Some(library),
        };
        // SAFETY: takes nothing. Should it fail, dropping `management` ends what
        // was not begun, which the library answers with a code.
        check("nvmlInit_v2", unsafe { init() })?;
        Ok(management)
    }

    /// `bus_id`: where the card sits, as the driver writes it.
    fn telemetry(&self, bus_id: &str) -> Telemetry {
        let Some(handle) = self.handle(bus_id) else {
            return Telemetry::default();
        };
        Telemetry {
            memory_used_bytes: read(|memory: &mut Memory| {
                // SAFETY: `handle` came from this library, which is still
                // started; it writes one structure, to `memory`.
                unsafe { (self.memory)(handle, memory) }
            })
            .map(|memory| memory.used),
            temperature_celsius: read(|degrees| {
                // SAFETY: as above; writes one unsigned int.
                unsafe { (self.temperature)(handle, TEMPERATURE_GPU, degrees) }
            }),
            power_milliwatts: read(|power| {
                // SAFETY: as above; writes one unsigned int.
                unsafe { (self.power)(handle, power) }
            }),
            utilisation_percent: read(|utilisation: &mut Utilisation| {
                // SAFETY: as above; writes one structure, to `utilisation`.
                unsafe { (self.utilisation)(handle, utilisation) }
            })
            .map(|utilisation| utilisation.gpu),
        }
    }

    fn handle(&self, bus_id: &str) -> Option<Handle> {
        let bus_id = std::ffi::CString::new(bus_id).ok()?;
        let mut handle = null_mut();
        // SAFETY: `bus_id` ends with a zero byte and `handle` has room for one
        // pointer; both outlive the call.
        let code = unsafe { (self.handle)(bus_id.as_ptr(), &raw mut handle) };
        (code == SUCCESS && !handle.is_null()).then_some(handle)
    }
}

impl Drop for Management {
    fn drop(&mut self) {
        // SAFETY: takes nothing, and no handle is used after it. Its answer
        // changes nothing: the library is unloaded next.
        let _code = unsafe { (self.shutdown)() };
    }
}

/// A value that `call` fills, if it answers with success.
fn read<T: Default>(call: impl FnOnce(&mut T) -> c_int) -> Option<T> {
    let mut value = T::default();
    (call(&mut value) == SUCCESS).then_some(value)
}

/// A text that `call` writes into the bytes it is given.
fn text(
    call_name: &'static str,
    call: impl FnOnce(*mut c_char, c_int) -> c_int,
) -> Result<String, GpuError> {
    let mut bytes = [0_u8; TEXT_BYTES as usize];
    // One byte less than there is, so that a zero always follows.
    check(
        call_name,
        call(bytes.as_mut_ptr().cast(), c_int::from(TEXT_BYTES) - 1),
    )?;
    let text = CStr::from_bytes_until_nul(&bytes).unwrap_or_default();
    Ok(text.to_string_lossy().into_owned())
}

fn check(call: &'static str, code: c_int) -> Result<(), GpuError> {
    match code {
        SUCCESS => Ok(()),
        _ => Err(GpuError::Driver { call, code }),
    }
}

fn open(name: &'static str) -> Result<Library, GpuError> {
    // SAFETY: opening runs the library's initialisers. These names are the
    // driver's own, found where the administrator's loader settings say.
    unsafe { Library::new(name) }.map_err(|error| GpuError::NoDriver {
        library: name,
        // What the loader said is the error's source.
        detail: std::error::Error::source(&error)
            .map_or_else(|| error.to_string(), ToString::to_string),
    })
}

/// The function `name`; `F` is its type in the library's header.
fn function<F: Copy>(library: &Library, name: &'static str) -> Result<F, GpuError> {
    // SAFETY: each caller passes the type that the header gives this name; the
    // pointer is kept only beside the library.
    let symbol = unsafe { library.get::<F>(name) };
    match symbol {
        Ok(symbol) => Ok(*symbol),
        Err(_) => Err(GpuError::Driver {
            call: name,
            code: -1,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    unsafe extern "C" fn start(_flags: c_uint) -> c_int {
        SUCCESS
    }

    unsafe extern "C" fn no_device(_flags: c_uint) -> c_int {
        100
    }

    unsafe extern "C" fn refuse(_flags: c_uint) -> c_int {
        803
    }

    unsafe extern "C" fn two(count: *mut c_int) -> c_int {
        // SAFETY: the code under test passes the address of an int.
        unsafe { count.write(2) };
        SUCCESS
    }

    unsafe extern "C" fn device(device: *mut c_int, ordinal: c_int) -> c_int {
        // SAFETY: the code under test passes the address of an int.
        unsafe { device.write(ordinal + 7) };
        SUCCESS
    }

    unsafe extern "C" fn name(bytes: *mut c_char, len: c_int, _device: c_int) -> c_int {
        // Fills all it is allowed to, without a zero at the end.
        // SAFETY: the code under test says how many bytes there are.
        unsafe { bytes.write_bytes(b'x', usize::try_from(len).unwrap()) };
        SUCCESS
    }

    unsafe extern "C" fn bus_id(bytes: *mut c_char, _len: c_int, device: c_int) -> c_int {
        let digit = u8::try_from(device).unwrap() + b'0';
        // SAFETY: the code under test gives room for more than one byte.
        unsafe { bytes.cast::<u8>().write(digit) };
        SUCCESS
    }

    unsafe extern "C" fn total_memory(bytes: *mut usize, _device: c_int) -> c_int {
        // SAFETY: the code under test passes the address of a `size_t`.
        unsafe { bytes.write(24 << 30) };
        SUCCESS
    }

    unsafe extern "C" fn attribute(value: *mut c_int, attribute: c_int, _device: c_int) -> c_int {
        // SAFETY: the code under test passes the address of an int.
        unsafe { value.write(if attribute == 75 { 8 } else { 9 }) };
        SUCCESS
    }

    fn driver(init: unsafe extern "C" fn(c_uint) -> c_int) -> Driver {
        Driver {
            init,
            device_count: two,
            device,
            name,
            bus_id,
            total_memory,
            attribute,
            _library: None,
        }
    }

    /// Knows the first card only.
    unsafe extern "C" fn handle(bus_id: *const c_char, handle: *mut Handle) -> c_int {
        // SAFETY: the code under test passes a text that ends with a zero.
        if unsafe { CStr::from_ptr(bus_id) }.to_bytes() != b"7" {
            return 6;
        }
        // SAFETY: the code under test passes the address of a handle.
        unsafe { handle.write(std::ptr::without_provenance_mut(42)) };
        SUCCESS
    }

    unsafe extern "C" fn memory(_handle: Handle, memory: *mut Memory) -> c_int {
        let value = Memory {
            total: 24 << 30,
            free: 18 << 30,
            used: 6 << 30,
        };
        // SAFETY: the code under test passes the address of a structure.
        unsafe { memory.write(value) };
        SUCCESS
    }

    unsafe extern "C" fn temperature(
        _handle: Handle,
        _sensor: c_uint,
        degrees: *mut c_uint,
    ) -> c_int {
        // SAFETY: the code under test passes the address of an unsigned int.
        unsafe { degrees.write(41) };
        SUCCESS
    }

    unsafe extern "C" fn not_supported(_handle: Handle, _power: *mut c_uint) -> c_int {
        3
    }

    unsafe extern "C" fn utilisation(_handle: Handle, utilisation: *mut Utilisation) -> c_int {
        // SAFETY: the code under test passes the address of a structure.
        unsafe { utilisation.write(Utilisation { gpu: 12, memory: 3 }) };
        SUCCESS
    }

    unsafe extern "C" fn shutdown() -> c_int {
        SUCCESS
    }

    fn management() -> Management {
        Management {
            handle,
            memory,
            temperature,
            power: not_supported,
            utilisation,
            shutdown,
            _library: None,
        }
    }

    #[test]
    fn cards_are_told_with_what_they_report_and_without_what_they_do_not() {
        let gpus = driver(start).gpus(Some(&management())).unwrap();
        assert_eq!(gpus.len(), 2);
        assert_eq!(gpus[0].name, "x".repeat(usize::from(TEXT_BYTES) - 1));
        assert_eq!(
            gpus[0].compute_capability,
            ComputeCapability::from_number(89)
        );
        assert_eq!(gpus[0].memory_total_bytes, 24 << 30);
        let expected = Telemetry {
            memory_used_bytes: Some(6 << 30),
            temperature_celsius: Some(41),
            power_milliwatts: None,
            utilisation_percent: Some(12),
        };
        assert_eq!(gpus[0].telemetry, Some(expected));
        assert_eq!(gpus[1].telemetry, Some(Telemetry::default()));
        let shown = gpus[0].to_string();
        let ending = "x, compute capability 8.9, 6.0 of 24.0 GiB, 12 % busy, 41 °C";
        assert!(shown.ends_with(ending), "{shown}");
    }

    #[test]
    fn without_the_management_library_cards_are_told_all_the_same() {
        let gpus = driver(start).gpus(None).unwrap();
        assert_eq!(gpus[1].telemetry, None);
    }

    #[test]
    fn a_driver_without_a_card_is_no_error_and_one_that_refuses_is() {
        assert_eq!(driver(no_device).gpus(None), Ok(Vec::new()));
        let refused = GpuError::Driver {
            call: "cuInit",
            code: 803,
        };
        assert_eq!(driver(refuse).gpus(None), Err(refused));
    }

    #[test]
    fn an_absent_library_is_no_driver() {
        let error = open("libinwarden-absent.so.1").unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, GpuError::NoDriver { .. }), "{text}");
        assert!(text.contains("No such file"), "{text}");
    }
}
