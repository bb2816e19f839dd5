package poller

// CountOnly has even small accounts counted, in ranges of about n contacts.
func CountOnly(p *Poller, n int) { p.maxCounted, p.listBelow = n, 0 }
