package publisher

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
)

const (
	// MinimumServer is the oldest nats-server that the bridge works with: earlier ones refuse message ids in atomic batches, ignore wildcards in
	// expected sequences, or both.
	MinimumServer = "2.12.1"
	// StateBucket is the key-value bucket for what cannot be derived from events. Bridges for several accounts share it.
	StateBucket = "nimble-bridge"

	// duplicateWindow is how long the server recognises a message id; at most the age limit.
	duplicateWindow = 2 * time.Minute
	// bucketWindow is the same for the bucket, as short as NATS has it. It needs none: what is sourced is counted by sequences. And what is sourced again must not be
	// taken for a duplicate of what a full disk or a power failure has taken.
	bucketWindow = 100 * time.Millisecond
	// markerTTL is how long the state bucket remembers that a key has expired.
	markerTTL = time.Minute

	none = -1
)

// checkServer refuses servers that would ignore what the bridge relies on.
func (p *Publisher) checkServer(ctx context.Context) error {
	if version := p.nc.ConnectedServerVersion(); !atLeast(version, MinimumServer) {
		return &ServerTooOldError{Version: version}
	}
	began := time.Now()
	limited, cancel := context.WithTimeout(ctx, p.cfg.AckTimeout)
	defer cancel()
	account, err := p.js.AccountInfo(limited)
	switch {
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		return &NoJetStreamError{Err: err}
	case err != nil:
		return fmt.Errorf("JetStream: %w", p.conn.explain(err, began))
	}
	// The server at the other end may be a leaf node in front of older ones, which announce no level or a lower one.
	if account.API.Level < minimumLevel {
		return &ServerTooOldError{Version: fmt.Sprintf("with JetStream API level %d", account.API.Level)}
	}
	return nil
}

// minimumLevel is the JetStream API level of 2.12.
const minimumLevel = 2

// atLeast compares versions like 2.12.1 or 2.14.0-RC.2 by their numbers. A preview of a version counts as that version.
func atLeast(version, minimum string) bool {
	numbers := func(s string) (n [3]int) {
		s, _, _ = strings.Cut(strings.TrimPrefix(s, "v"), "-")
		for i, part := range strings.SplitN(s, ".", 3) {
			n[i], _ = strconv.Atoi(part) // What is no number counts as 0, and is too old.
		}
		return n
	}
	a, b := numbers(version), numbers(minimum)
	return slices.Compare(a[:], b[:]) >= 0
}

// setUp creates, updates or verifies the stream and the buckets.
func (p *Publisher) setUp(ctx context.Context) error {
	stream, err := p.ensure(ctx, p.eventObject(), p.shapeEvents, p.unfitEvents)
	if err != nil {
		return err
	}
	if size := stream.MaxMsgSize; size > 0 {
		p.maxMsgSize = int(size)
	}
	if _, err := p.ensure(ctx, p.bucketObject(), p.shapeBucket, p.unfitBucket); err != nil {
		return err
	}
	if _, err := p.ensure(ctx, stateObject, p.shapeState, p.unfitState); err != nil {
		return err
	}
	return nil
}

// object is a stream, as it is called among people.
type object struct {
	// name is the stream's name, title for instance "bucket nimble-contacts (stream KV_nimble-contacts)".
	name, title string
}

var stateObject = object{kvStream(StateBucket), "bucket " + StateBucket + " (stream " + kvStream(StateBucket) + ")"}

func (p *Publisher) eventObject() object {
	return object{p.cfg.Stream, "stream " + p.cfg.Stream}
}

func (p *Publisher) bucketObject() object {
	return object{p.bucketStream, "bucket " + p.cfg.Bucket + " (stream " + p.bucketStream + ")"}
}

// kvStream is the name of a bucket's stream.
func kvStream(bucket string) string { return "KV_" + bucket }

// ensure makes sure that a stream is there and fits. shape changes a configuration into what is needed, leaving alone what is the
// operator's to choose; unfit lists what does not fit in a configuration as the server has it.
func (p *Publisher) ensure(ctx context.Context, o object, shape func(*jetstream.StreamConfig), unfit func(jetstream.StreamConfig) []Misfit) (jetstream.StreamConfig, error) {
	is, err := p.configOf(ctx, o)
	_, missing := errors.AsType[*MissingError](err)
	switch {
	case err != nil && !missing:
		return is, err
	case missing && !p.cfg.Manage:
		return is, err
	}
	if p.cfg.Manage {
		needed := is
		needed.Name = o.name
		shape(&needed)
		if missing || !reflect.DeepEqual(is, needed) {
			if err := p.put(ctx, o, needed, missing); err != nil {
				return is, err
			}
			// What an older server does not know it leaves out, silently.
			if is, err = p.configOf(ctx, o); err != nil {
				return is, err
			}
		}
	}
	if misfits := unfit(is); len(misfits) > 0 {
		fix := "change it with `nats stream edit " + o.name + "`, or set NATS_MANAGE=true"
		if p.cfg.Manage {
			fix = "NATS cannot change that in place: move it away, and it is created anew"
		}
		return is, &UnfitError{Object: o.title, Misfits: misfits, Fix: fix}
	}
	return is, nil
}

// configOf reads a stream's configuration.
func (p *Publisher) configOf(ctx context.Context, o object) (jetstream.StreamConfig, error) {
	info, err := p.infoOf(ctx, o)
	if err != nil {
		return jetstream.StreamConfig{}, err
	}
	return info.Config, nil
}

// infoOf reads what the server knows of a stream.
func (p *Publisher) infoOf(ctx context.Context, o object) (*jetstream.StreamInfo, error) {
	return patiently(ctx, p, func() (*jetstream.StreamInfo, error) {
		began := time.Now()
		limited, cancel := context.WithTimeout(ctx, p.cfg.AckTimeout)
		defer cancel()
		stream, err := p.js.Stream(limited, o.name)
		if err != nil {
			return nil, p.meaning(p.conn.explain(err, began), o.title)
		}
		return stream.CachedInfo(), nil
	})
}

// put creates or updates a stream.
func (p *Publisher) put(ctx context.Context, o object, cfg jetstream.StreamConfig, create bool) error {
	_, err := patiently(ctx, p, func() (jetstream.Stream, error) {
		began := time.Now()
		limited, cancel := context.WithTimeout(ctx, p.cfg.AckTimeout)
		defer cancel()
		stream, err := p.js.CreateOrUpdateStream(limited, cfg)
		return stream, p.conn.explain(err, began)
	})
	if err == nil {
		p.log.Info(map[bool]string{true: "stream created", false: "stream updated"}[create], zap.String("stream", o.name))
		return nil
	}
	fix := ""
	switch apiCode(err) {
	case codeReplicas:
		fix = fixReplicas
	case codeOverlap:
		fix = fixOverlap
	case codeInsufficientStorage, codeInsufficientResource, codeAccountResources:
		fix = fixRoom
	case codeStoreNotMade:
		fix = fixStore
	case 0:
		return p.meaning(err, o.title)
	default:
		if cfg.PersistMode == jetstream.AsyncPersistMode && cfg.Replicas > 1 {
			fix = "delete stream " + o.name + ", which was made for a single server: it is created anew and sourced again"
			break
		}
		fix = "change or move what is there, or set NATS_MANAGE=false and prepare it by hand"
	}
	return &SetupError{Object: o.title, Err: err, Fix: fix}
}

// What to do about the usual refusals.
const (
	fixReplicas = "set NATS_REPLICAS=1, or run a cluster"
	fixOverlap  = "another stream has these subjects: set NATS_SUBJECT_PREFIX, or NATS_STREAM to that stream's name"
	fixStore    = "the server cannot write its files: its log says why, a full disk or a missing permission most likely"
	fixRoom     = "lower NATS_STREAM_MAX_BYTES, which is reserved at once, or give the server or account more room"
)

// The event stream.

func (p *Publisher) contactSubjects() string { return p.cfg.Prefix + ".*.contact.*.*" }
func (p *Publisher) bridgeSubjects() string  { return p.cfg.Prefix + ".*.bridge.*" }

// shapeEvents makes a configuration fit the event stream.
func (p *Publisher) shapeEvents(c *jetstream.StreamConfig) {
	if c.Description == "" {
		c.Description = "Contact events of nimble-bridge"
	}
	for _, subject := range []string{p.contactSubjects(), p.bridgeSubjects()} {
		if !covers(c.Subjects, subject) {
			// A stream's subjects must not overlap.
			others := slices.DeleteFunc(slices.Clone(c.Subjects), func(s string) bool { return subsumes(subject, s) })
			c.Subjects = append(others, subject)
		}
	}
	c.Storage = jetstream.FileStorage
	c.Retention = jetstream.LimitsPolicy
	// A full stream has to say so; dropping its oldest events instead would be a loss that nobody hears of.
	c.Discard = jetstream.DiscardNew
	c.Replicas = p.replicas(c)
	c.MaxAge = p.cfg.MaxAge
	c.MaxBytes = p.cfg.MaxBytes
	if c.MaxBytes <= 0 {
		c.MaxBytes = none
	}
	c.MaxMsgs, c.MaxMsgsPerSubject, c.MaxConsumers = orNone(c.MaxMsgs), none, int(orNone(int64(c.MaxConsumers)))
	if c.MaxMsgSize == 0 {
		c.MaxMsgSize = none
	}
	c.Duplicates = duplicateWindow
	if c.MaxAge > 0 {
		c.Duplicates = min(c.Duplicates, c.MaxAge)
	}
	c.AllowAtomicPublish = true
	// Reads are to come from the leader, and erasing a person has to be possible.
	// DenyDelete is left as it is, because NATS never takes it back.
	c.AllowDirect, c.NoAck = false, false
}

// replicas is what the configuration asks for, but never fewer than there are: who made more by hand wants them.
func (p *Publisher) replicas(is *jetstream.StreamConfig) int {
	return max(p.cfg.Replicas, is.Replicas, 1)
}

func orNone(limit int64) int64 {
	if limit <= 0 {
		return none
	}
	return limit
}

func (p *Publisher) unfitEvents(c jetstream.StreamConfig) []Misfit {
	var m misfits
	for _, subject := range []string{p.contactSubjects(), p.bridgeSubjects()} {
		if !covers(c.Subjects, subject) {
			m.add("subjects", strings.Join(c.Subjects, ", "), "one that covers "+subject)
		}
	}
	m.unless(c.Mirror == nil, "mirror", "set", "none")
	m.unless(c.SubjectTransform == nil, "subject transform", "set", "none")
	m.unless(c.Storage == jetstream.FileStorage, "storage", c.Storage.String(), "File")
	m.unless(c.Retention == jetstream.LimitsPolicy, "retention", c.Retention.String(), "Limits")
	limited := c.MaxBytes > 0 || c.MaxMsgs > 0
	m.unless(!limited || c.Discard == jetstream.DiscardNew, "discard", c.Discard.String(), "DiscardNew")
	m.unless(c.MaxMsgsPerSubject <= 0, "max_msgs_per_subject", strconv.FormatInt(c.MaxMsgsPerSubject, 10), "none")
	m.unless(c.AllowAtomicPublish, "allow_atomic", "false", "true")
	m.unless(!c.NoAck, "no_ack", "true", "false")
	m.unless(!c.Sealed, "sealed", "true", "false")
	return m
}

// The bucket with the latest event of each contact.

// listed is the one key that could be written to the bucket. A bucket without any subject is left out when clients list the buckets there are; one with all of its
// keys as subjects could be written to by anybody, where only NATS is to, sourcing the event stream.
const listed = "_"

// shapeBucket makes a configuration fit the bucket's stream, which the key-value API of every client can read.
func (p *Publisher) shapeBucket(c *jetstream.StreamConfig) {
	created := len(c.Sources) == 0 && len(c.Subjects) == 0
	c.Subjects = []string{"$KV." + p.cfg.Bucket + "." + listed}
	if c.Description == "" {
		c.Description = "Latest event of each contact, sourced from stream " + p.cfg.Stream
	}
	if len(c.Sources) != 1 || !p.sourceFits(c.Sources[0]) {
		c.Sources = []*jetstream.StreamSource{p.source(0, 0)}
	}
	c.Storage = jetstream.FileStorage
	c.Retention = jetstream.LimitsPolicy
	c.Discard = jetstream.DiscardNew
	c.Replicas = p.replicas(c)
	c.MaxMsgsPerSubject = 1
	c.MaxAge = 0
	// A limit would make a contact's entry give way to another's.
	c.MaxBytes, c.MaxMsgs, c.MaxConsumers, c.MaxMsgSize = none, none, none, none
	c.Duplicates = bucketWindow
	c.AllowDirect, c.AllowRollup, c.DenyDelete = true, true, true
	if created && c.Replicas == 1 && p.nc.ConnectedClusterName() == "" {
		// NATS can always source the bucket again, so it need not sync each entry by itself, which would hold it back to some thousand events a second
		// on a server that syncs always. The mode cannot be changed later nor be used with replicas, so a cluster does not get it.
		c.PersistMode = jetstream.AsyncPersistMode
	}
}

func (p *Publisher) unfitBucket(c jetstream.StreamConfig) []Misfit {
	var m misfits
	if len(c.Sources) != 1 || !p.sourceFits(c.Sources[0]) {
		m.add("sources", describeSources(c.Sources), describeSources([]*jetstream.StreamSource{p.source(0, 0)}))
	}
	m.unless(c.MaxMsgsPerSubject == 1, "max_msgs_per_subject", strconv.FormatInt(c.MaxMsgsPerSubject, 10), "1")
	m.unless(c.MaxAge == 0, "max_age", c.MaxAge.String(), "none")
	m.unless(c.MaxBytes <= 0, "max_bytes", strconv.FormatInt(c.MaxBytes, 10), "none")
	m.unless(c.MaxMsgs <= 0, "max_msgs", strconv.FormatInt(c.MaxMsgs, 10), "none")
	m.unless(c.Storage == jetstream.FileStorage, "storage", c.Storage.String(), "File")
	m.unless(c.Retention == jetstream.LimitsPolicy, "retention", c.Retention.String(), "Limits")
	m.unless(c.Mirror == nil, "mirror", "set", "none")
	return m
}

// wildcards are ways to write "the first wildcard" and "the third wildcard" in a subject transform. They mean the same; but NATS remembers how far it has
// sourced by the exact text, so that another spelling makes it begin anew, see [Publisher.sourceAgain].
var wildcards = [...]string{"{{wildcard(%d)}}", "$%d", "{{Wildcard(%d)}}"}

const spellings = len(wildcards) * len(wildcards)

// source is how the bucket is filled: from the event stream's given sequence on, or its beginning for 0.
func (p *Publisher) source(spelling int, from uint64) *jetstream.StreamSource {
	return &jetstream.StreamSource{
		Name:        p.cfg.Stream,
		OptStartSeq: from,
		SubjectTransforms: []jetstream.SubjectTransformConfig{{
			Source:      p.contactSubjects(),
			Destination: p.destination(spelling),
		}},
	}
}

func (p *Publisher) destination(spelling int) string {
	spelling %= spellings
	account := fmt.Sprintf(wildcards[spelling/len(wildcards)], 1)
	contact := fmt.Sprintf(wildcards[spelling%len(wildcards)], 3)
	return "$KV." + p.cfg.Bucket + "." + account + "." + contact
}

func (p *Publisher) sourceFits(s *jetstream.StreamSource) bool {
	return p.spellingOf(s) >= 0 && s.Name == p.cfg.Stream && s.FilterSubject == "" && s.OptStartTime == nil && s.External == nil &&
		s.SubjectTransforms[0].Source == p.contactSubjects()
}

// spellingOf is the number of a source's spelling, -1 if it is none of ours.
func (p *Publisher) spellingOf(s *jetstream.StreamSource) int {
	if len(s.SubjectTransforms) != 1 {
		return -1
	}
	for i := range spellings {
		if s.SubjectTransforms[0].Destination == p.destination(i) {
			return i
		}
	}
	return -1
}

func describeSources(sources []*jetstream.StreamSource) string {
	if len(sources) == 0 {
		return "none"
	}
	var b strings.Builder
	for i, s := range sources {
		if i > 0 {
			b.WriteString(" and ")
		}
		b.WriteString(s.Name)
		for _, t := range s.SubjectTransforms {
			b.WriteString(" with " + t.Source + " to " + t.Destination)
		}
	}
	return b.String()
}

// The state bucket.

func (p *Publisher) shapeState(c *jetstream.StreamConfig) {
	if c.Description == "" {
		c.Description = "How far nimble-bridge has read each account"
	}
	c.Subjects = []string{"$KV." + StateBucket + ".>"}
	c.Storage = jetstream.FileStorage
	c.Retention = jetstream.LimitsPolicy
	c.Discard = jetstream.DiscardNew
	c.Replicas = p.replicas(c)
	c.MaxMsgsPerSubject = 1
	c.MaxAge = 0
	c.MaxBytes, c.MaxMsgs, c.MaxConsumers, c.MaxMsgSize = none, none, none, none
	c.Duplicates = duplicateWindow
	c.AllowDirect, c.AllowRollup, c.DenyDelete = true, true, true
	c.AllowMsgTTL = true
	if c.SubjectDeleteMarkerTTL == 0 {
		c.SubjectDeleteMarkerTTL = markerTTL
	}
}

func (p *Publisher) unfitState(c jetstream.StreamConfig) []Misfit {
	var m misfits
	subject := "$KV." + StateBucket + ".>"
	m.unless(covers(c.Subjects, subject), "subjects", strings.Join(c.Subjects, ", "), subject)
	m.unless(c.MaxMsgsPerSubject >= 1, "max_msgs_per_subject", strconv.FormatInt(c.MaxMsgsPerSubject, 10), "1")
	m.unless(c.MaxAge == 0, "max_age", c.MaxAge.String(), "none")
	m.unless(c.AllowRollup, "allow_rollup_hdrs", "false", "true")
	m.unless(c.AllowMsgTTL, "allow_msg_ttl", "false", "true")
	m.unless(c.SubjectDeleteMarkerTTL > 0, "subject_delete_marker_ttl", c.SubjectDeleteMarkerTTL.String(), markerTTL.String())
	return m
}

// misfits collects what does not fit.
type misfits []Misfit

func (m *misfits) add(property, is, needed string) {
	if is == "" {
		is = "none"
	}
	*m = append(*m, Misfit{Property: property, Is: is, Needed: needed})
}

func (m *misfits) unless(fits bool, property, is, needed string) {
	if !fits {
		m.add(property, is, needed)
	}
}

// covers tells whether a stream's subjects take in everything that a filter matches.
func covers(subjects []string, filter string) bool {
	return slices.ContainsFunc(subjects, func(subject string) bool { return subsumes(subject, filter) })
}

func subsumes(wide, narrow string) bool {
	w, n := strings.Split(wide, "."), strings.Split(narrow, ".")
	for i, token := range w {
		switch {
		case token == ">":
			return len(n) > i
		case i >= len(n) || n[i] == ">":
			return false
		case token != "*" && token != n[i]:
			return false
		}
	}
	return len(w) == len(n)
}
