//! Wrong usage in one line, as every other failure.

use std::process::ExitCode;

use clap::error::ErrorKind;

/// What the shell is told of wrong usage.
const WRONG_USAGE: u8 = 2;

/// Prints help and version as they are, everything else as one line, and gives the code.
pub(crate) fn report(error: &clap::Error) -> ExitCode {
    let is_help = matches!(
        error.kind(),
        ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    );
    if is_help {
        // `--help | head` leaves; there is nobody to tell.
        let _ = error.print();
    } else {
        eprintln!("highwater: {}", one_line(&error.render().to_string()));
    }
    match error.exit_code() {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::from(WRONG_USAGE),
    }
}

/// The message and its tips, without the usage that clap prints below them; where to find that
/// instead.
fn one_line(rendered: &str) -> String {
    let message = rendered.strip_prefix("error: ").unwrap_or(rendered);
    let end = message.find("\n\nUsage:");
    let end = end.or_else(|| message.find("\n\nFor more information"));
    let parts: Vec<&str> = message[..end.unwrap_or(message.len())]
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let usage = rendered
        .lines()
        .find_map(|line| line.strip_prefix("Usage: "));
    let command = usage.map_or("highwater", |usage| {
        let end = [" [", " <", " --"]
            .iter()
            .filter_map(|mark| usage.find(mark))
            .min();
        usage[..end.unwrap_or(usage.len())].trim()
    });
    format!("{}; see `{command} --help`", parts.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_and_tip_stay_and_usage_goes() {
        let rendered = "error: unexpected argument '--formt' found\n\n  tip: a similar argument \
            exists: '--format'\n\nUsage: highwater consume --format <FORMAT> <TOPIC>\n\nFor more \
            information, try '--help'.\n";
        assert_eq!(
            one_line(rendered),
            "unexpected argument '--formt' found tip: a similar argument exists: '--format'; \
            see `highwater consume --help`"
        );
        let rendered = "error: the following required arguments were not provided:\n  <TOPIC>\n\n\
            Usage: highwater topic create <TOPIC>\n\nFor more information, try '--help'.\n";
        assert_eq!(
            one_line(rendered),
            "the following required arguments were not provided: <TOPIC>; \
            see `highwater topic create --help`"
        );
        let rendered = "error: invalid value 'x' for '--count <N>': invalid digit found in \
            string\n\nFor more information, try '--help'.\n";
        assert_eq!(
            one_line(rendered),
            "invalid value 'x' for '--count <N>': invalid digit found in string; \
            see `highwater --help`"
        );
    }
}
