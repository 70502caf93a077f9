//! Every error of the pure crates as Postgres shows it: SQLSTATE, message, DETAIL, HINT.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::spi::SpiError;
use sketch_model::codebook::CodebookError;
use sketch_model::embedding::EmbeddingError;
use sketch_model::form::FormError;
use sketch_model::hubs::BankError;
use sketch_model::index::IndexError;
use sketch_model::inference::encoder::EncoderError;
use sketch_model::inference::runner::RunnerError;
use sketch_model::inference::runtime::RuntimeError;
use sketch_model::manifest::{ManifestError, PrepareError};
use sketch_model::render::decode::DecodeError;
use sketch_model::render::drawing::DrawingError;
use sketch_model::render::preprocess::PreprocessError;
use sketch_model::render::strokes::StrokesError;
use sketch_model::render::svg::SvgError;
use std::error::Error;

/// A result whose error is on its way to the user; SQL functions return `Result<T, ErrorReport>`.
pub type Result<T, E = SqlError> = std::result::Result<T, E>;

/// An error on its way to the user. A SQL function returns it as [`ErrorReport`], and it becomes an ERROR.
#[derive(Clone, Debug)]
pub struct SqlError {
    code: PgSqlErrorCode,
    message: String,
    detail: Option<String>,
    hint: Option<String>,
}

impl SqlError {
    /// An error of this SQLSTATE and primary message.
    pub fn new(code: PgSqlErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), detail: None, hint: None }
    }

    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The primary message.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Message, DETAIL and HINT in one text.
    pub fn text(&self) -> String {
        let more = [&self.detail, &self.hint];
        more.into_iter().flatten().fold(self.message.clone(), |text, more| format!("{text}\n{more}"))
    }

    /// The same error with another primary message; what it said before becomes its DETAIL.
    pub fn within(self, message: impl Into<String>) -> Self {
        let detail = [Some(sentence(&self.message)), self.detail].into_iter().flatten().collect::<Vec<_>>().join(" ");
        Self { message: message.into(), detail: Some(detail), ..self }
    }

    /// The error as bytes, for another process: SQLSTATE, message, DETAIL and HINT.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = (self.code as i32).to_le_bytes().to_vec();
        let part = |text: &Option<String>| text.clone().unwrap_or_default();
        for text in [self.message.clone(), part(&self.detail), part(&self.hint)] {
            bytes.extend(text.replace('\0', " ").into_bytes());
            bytes.push(0);
        }
        bytes
    }

    /// The error of these bytes.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let (code, texts) = bytes.split_at_checked(4).unwrap_or_default();
        let code = code.try_into().map_or(0, i32::from_le_bytes);
        let mut texts = texts.split(|byte| *byte == 0).map(|text| String::from_utf8_lossy(text).into_owned());
        Self {
            code: PgSqlErrorCode::from(code as isize),
            message: texts.next().unwrap_or_default(),
            detail: texts.next().filter(|text| !text.is_empty()),
            hint: texts.next().filter(|text| !text.is_empty()),
        }
    }

    /// Reports it as a WARNING, and goes on.
    pub fn warn(self) {
        ErrorReport::from(self).report(PgLogLevel::WARNING);
    }

    /// Reports it as a NOTICE, and goes on.
    pub fn notice(self) {
        ErrorReport::from(self).report(PgLogLevel::NOTICE);
    }

    /// An error of a pure crate: its message, and what caused it as DETAIL.
    fn of(code: PgSqlErrorCode, error: &dyn Error) -> Self {
        let report = Self::new(code, error.to_string());
        match error.source() {
            Some(source) => report.detail(sentence(&source.to_string())),
            None => report,
        }
    }
}

/// Makes a full sentence of another library's message.
fn sentence(text: &str) -> String {
    let text = text.trim().trim_end_matches('.');
    let mut letters = text.chars();
    letters.next().map(|first| format!("{}{}.", first.to_uppercase(), letters.as_str())).unwrap_or_default()
}

impl From<SqlError> for ErrorReport {
    fn from(error: SqlError) -> Self {
        let mut report = ErrorReport::new(error.code, error.message, "");
        if let Some(detail) = error.detail {
            report = report.set_detail(detail);
        }
        if let Some(hint) = error.hint {
            report = report.set_hint(hint);
        }
        report
    }
}

impl From<SpiError> for SqlError {
    fn from(error: SpiError) -> Self {
        Self::of(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, &error)
    }
}

impl From<PrepareError> for SqlError {
    fn from(error: PrepareError) -> Self {
        match error {
            PrepareError::Decode(error) => error.into(),
            PrepareError::Drawing(error) => error.into(),
            PrepareError::Preprocess(error) => error.into(),
        }
    }
}

impl From<DecodeError> for SqlError {
    fn from(error: DecodeError) -> Self {
        match &error {
            DecodeError::TooManyBytes { .. } => too_large(&error, "pg_sketch.max_image_size"),
            DecodeError::TooManyPixels { .. } => too_large(&error, "pg_sketch.max_image_pixels"),
            DecodeError::TooMuchMemory { .. } => {
                Self::of(PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED, &error).hint("Send a smaller image.")
            }
            DecodeError::UnsupportedFormat { .. } | DecodeError::UnknownFormat | DecodeError::Empty => {
                Self::of(PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, &error)
                    .hint("Photos are read as PNG, JPEG or WebP; drawings as SVG and strokes in JSON, too.")
            }
            _ => Self::of(PgSqlErrorCode::ERRCODE_DATA_EXCEPTION, &error),
        }
    }
}

fn too_large(error: &dyn Error, setting: &str) -> SqlError {
    SqlError::of(PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED, error)
        .hint(format!("Send a smaller one, or have a superuser raise {setting}."))
}

impl From<DrawingError> for SqlError {
    fn from(error: DrawingError) -> Self {
        use PgSqlErrorCode::*;
        match error {
            DrawingError::Image(error) => error.into(),
            DrawingError::TooManyBytes { .. } => too_large(&error, "pg_sketch.max_image_size"),
            DrawingError::Strokes(StrokesError::TooManyPoints { .. }) | DrawingError::Svg(SvgError::TooManyPoints { .. }) => {
                too_large(&error, "pg_sketch.max_points")
            }
            DrawingError::Strokes(StrokesError::UnexpectedShape { .. }) => Self::of(ERRCODE_DATA_EXCEPTION, &error)
                .hint("Strokes are lists of coordinates, [[[x, ...], [y, ...]], ...], or of points, [[{\"x\": x, \"y\": y}, ...], ...]."),
            DrawingError::Svg(SvgError::UnsupportedElement { .. }) => Self::of(ERRCODE_FEATURE_NOT_SUPPORTED, &error)
                .hint("Draw with plain shapes and paths, or send the drawing as PNG."),
            DrawingError::UnknownFormat | DrawingError::DataUriType { .. } => {
                Self::of(ERRCODE_FEATURE_NOT_SUPPORTED, &error)
            }
            _ => Self::of(ERRCODE_DATA_EXCEPTION, &error),
        }
    }
}

impl From<PreprocessError> for SqlError {
    fn from(error: PreprocessError) -> Self {
        Self::of(PgSqlErrorCode::ERRCODE_DATA_EXCEPTION, &error)
    }
}

impl From<ManifestError> for SqlError {
    fn from(error: ManifestError) -> Self {
        Self::of(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, &error)
    }
}

impl From<RuntimeError> for SqlError {
    fn from(error: RuntimeError) -> Self {
        let report = Self::of(PgSqlErrorCode::ERRCODE_UNDEFINED_FILE, &error);
        match error {
            RuntimeError::Load { detail, .. } => report.detail(sentence(&detail)).hint(
                "Install the library of ONNX Runtime 1.20 or later, or have a superuser set pg_sketch.onnxruntime to its path.",
            ),
            _ => report,
        }
    }
}

impl From<EncoderError> for SqlError {
    fn from(error: EncoderError) -> Self {
        use PgSqlErrorCode::*;
        match error {
            EncoderError::Runtime(error) => error.into(),
            EncoderError::Device { ref reason, .. } => Self::of(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, &error)
                .detail(sentence(reason))
                .hint("Set pg_sketch.device to auto to fall back to the CPU."),
            EncoderError::Signature { ref found, .. } => {
                Self::of(ERRCODE_INVALID_PARAMETER_VALUE, &error).detail(format!("The network has {found} there."))
            }
            EncoderError::Onnx(_) | EncoderError::Load(_) => Self::of(ERRCODE_INVALID_PARAMETER_VALUE, &error),
            EncoderError::Run(_) | EncoderError::Batch { .. } | EncoderError::NotFinite | EncoderError::Stopped => {
                Self::of(ERRCODE_EXTERNAL_ROUTINE_EXCEPTION, &error)
            }
        }
    }
}

impl From<RunnerError> for SqlError {
    fn from(error: RunnerError) -> Self {
        use PgSqlErrorCode::*;
        match error {
            RunnerError::Start(_) => Self::of(ERRCODE_INSUFFICIENT_RESOURCES, &error),
            RunnerError::Ended => Self::of(ERRCODE_EXTERNAL_ROUTINE_EXCEPTION, &error),
        }
    }
}

impl From<CodebookError> for SqlError {
    fn from(error: CodebookError) -> Self {
        use PgSqlErrorCode::*;
        match &error {
            CodebookError::TooFewSamples { .. } | CodebookError::TooFewDistinct { .. } => {
                Self::of(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, &error)
                    .hint("Ask for fewer prototypes, or embed more photos first.")
            }
            CodebookError::Interrupted => Self::new(ERRCODE_QUERY_CANCELED, "canceling statement due to user request"),
            _ => Self::of(ERRCODE_INVALID_PARAMETER_VALUE, &error),
        }
    }
}

impl From<EmbeddingError> for SqlError {
    fn from(error: EmbeddingError) -> Self {
        use PgSqlErrorCode::*;
        match &error {
            EmbeddingError::Syntax { problem, .. } => {
                Self::of(ERRCODE_INVALID_TEXT_REPRESENTATION, &error).detail(problem.as_str())
            }
            EmbeddingError::Empty | EmbeddingError::NotFinite { .. } => Self::of(ERRCODE_DATA_EXCEPTION, &error),
            EmbeddingError::TooLong { .. } => Self::of(ERRCODE_PROGRAM_LIMIT_EXCEEDED, &error),
            EmbeddingError::Length { .. } | EmbeddingError::Reserved { .. } => {
                Self::of(ERRCODE_INVALID_BINARY_REPRESENTATION, &error)
            }
        }
    }
}

impl From<BankError> for SqlError {
    fn from(error: BankError) -> Self {
        Self::of(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, &error)
    }
}

impl From<FormError> for SqlError {
    fn from(error: FormError) -> Self {
        match error {
            FormError::Codebook(error) => error.into(),
            FormError::Bank(error) => error.into(),
            FormError::OtherBank { .. } => Self::of(PgSqlErrorCode::ERRCODE_DATA_CORRUPTED, &error),
        }
    }
}

impl From<IndexError> for SqlError {
    fn from(error: IndexError) -> Self {
        use PgSqlErrorCode::*;
        match error {
            IndexError::Damaged { page, what } => Self::new(ERRCODE_INDEX_CORRUPTED, "index is damaged")
                .detail(format!("Page {page}: {what}."))
                .hint("REINDEX it."),
            IndexError::Version { .. } => Self::of(ERRCODE_FEATURE_NOT_SUPPORTED, &error)
                .detail("Another version of pg_sketch made it.")
                .hint("REINDEX it."),
            IndexError::Dimension { .. } => Self::of(ERRCODE_DATA_EXCEPTION, &error),
            IndexError::Interrupted => Self::new(ERRCODE_QUERY_CANCELED, "canceling statement due to user request"),
        }
    }
}
