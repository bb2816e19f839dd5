package poller

import (
	"time"

	"go.uber.org/zap"

	"nimble-bridge/nimble"
)

// zone is how far the account's timestamps are from UTC. Those without a zone are UTC by the evidence there is; the second of creation inside each
// id tells whether that holds for this account.
type zone struct {
	offset time.Duration
	known  bool
}

// zoneSamples is how many contacts have to agree before a zone is believed.
const zoneSamples = 3

// calibrate compares the times of creation with those inside the ids, once, and corrects the contacts' times from then on.
func (p *Poller) calibrate(rows []nimble.Contact) {
	if !p.zone.known {
		if offset, ok := zoneOf(rows); ok {
			p.zone = zone{offset, true}
			if offset != 0 {
				p.log.Warn("the account's timestamps are not in UTC, as the ids show; they are corrected", zap.Duration("offset", offset))
			}
		}
	}
	if p.zone.offset == 0 {
		return
	}
	for i, c := range rows {
		rows[i] = p.calibrated(c)
	}
}

// calibrated returns the contact with its times in UTC.
func (p *Poller) calibrated(c nimble.Contact) nimble.Contact {
	if created, ok := nimble.IDTime(c.ID); p.zone.offset == 0 || ok && c.Created.Sub(created).Abs() < zoneStep/2 {
		return c // Times that carry their zone are right as they are.
	}
	if !c.Created.IsZero() {
		c.Created = c.Created.Add(-p.zone.offset)
	}
	if !c.Updated.IsZero() {
		c.Updated = c.Updated.Add(-p.zone.offset)
	}
	return c
}

// zoneStep divides every offset from UTC that is in use.
const zoneStep = 15 * time.Minute

// zoneOf returns the offset that all contacts with a readable time of creation show. There is none while they disagree or are too few.
func zoneOf(rows []nimble.Contact) (offset time.Duration, ok bool) {
	samples := 0
	for _, c := range rows {
		inside, known := nimble.IDTime(c.ID)
		if !known || c.Created.IsZero() {
			continue
		}
		apart := c.Created.Sub(inside)
		step := apart.Round(zoneStep)
		if (apart-step).Abs() > 5*time.Second || step.Abs() > 14*time.Hour || samples > 0 && step != offset {
			return 0, false
		}
		offset = step
		samples++
	}
	return offset, samples >= zoneSamples
}
