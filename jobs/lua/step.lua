-- Checkpoint and claim in one round trip. Sending the same step twice changes nothing twice: counts are
-- the difference between the stored and the new bytes, an appended listing names the cursor it follows.
-- in: id, walker, want, using, origin, retries, attempted, batches {{p, t, o, f}} (o, f: of changed ones), lister,
--     append, fault, bye, abort (ends the run as failed, now),
--     seconds {bucket: n, sum} (of all answers this walker has had)
-- out: JSON, see jobs/scripts.py StepReply
local id, r = a.id, K.run .. a.id
local pages, out, leases, owners = key(id, 'pages'), key(id, 'out'), key(id, 'leases'), key(id, 'owners')
local walkers, shares = key(id, 'walkers'), key(id, 'shares')

local status = call('HGET', r, 'status')
if status ~= 'running' then return cjson.encode({ status = status or 'gone' }) end
if not call('ZSCORE', walkers, a.walker) or not take_lock(id) then return cjson.encode({ status = 'expelled' }) end

local cancelled = call('HEXISTS', r, 'cancelled_by') == 1  -- nothing is listed, claimed or tried again any more
local reply = { lost = {}, claimed = {}, share = 0, cancelled = cancelled }
local expiry = ms(now + C.lock_ms)
local function fence() return a.walker .. '#' .. call('HINCRBY', r, 'fence', 1) end

-- This walker's share of ORIGIN_CONCURRENCY: never more than what the others left, never less than it uses.
-- Who has nothing to walk has none. With none left it gives its batches back, or nobody could ever finish them.
local leaves, held = a.bye, a.using
if a.bye then
  call('ZREM', walkers, a.walker)
  call('HDEL', shares, a.walker)
else
  call('ZADD', walkers, expiry, a.walker)
  local several, others, rank = 0, 0, 0
  for _, name in ipairs(live_walkers(id)) do
    local share = call('HGET', shares, name)
    if name == a.walker then rank = several elseif share then others = others + share end
    if name == a.walker or share then several = several + 1 end
  end
  local fair = math.floor(a.origin / several) + (rank < a.origin % several and 1 or 0)
  reply.share = math.max(0, math.min(fair, a.origin - others))
  call('HSET', shares, a.walker, math.max(a.using, reply.share))  -- what is in flight above it still counts
  leaves = reply.share == 0 and a.using == 0
end

local function count(before, after)
  local deltas = {}
  for i = 1, #after do
    local old, new = string.sub(before, i, i), string.sub(after, i, i)
    if old ~= new then
      deltas[new] = (deltas[new] or 0) + 1
      deltas[old] = (deltas[old] or 0) - 1
    end
  end
  deltas['.'] = nil
  for letter, delta in pairs(deltas) do
    call('HINCRBY', r, 'c:' .. letter, delta)
    call('HINCRBY', K.metrics, 'requests:' .. letter, delta)
  end
end

reply.failures, reply.first = call('HLEN', key(id, 'failed')), call('HSETNX', r, 'begun', 1) == 1
for _, batch in ipairs(a.batches) do
  local p = tostring(batch.p)
  local mine = call('HGET', owners, p) == batch.t
  if mine and batch.o then
    count(call('HGET', out, p), batch.o)
    call('HSET', out, p, batch.o)
    for site, failure in pairs(batch.f or {}) do
      if call('HLEN', key(id, 'failed')) < C.most_failures then call('HSET', key(id, 'failed'), site, failure) end
    end
  end
  if mine and batch.o and not string.find(batch.o, '.', 1, true) then
    note_outcomes(id, cjson.decode(call('HGET', pages, p)), batch.o)
    for _, part in ipairs({ pages, out, owners }) do call('HDEL', part, p) end
    call('ZREM', leases, p)
    call('HINCRBY', r, 'done', 1)
  elseif mine and not leaves then
    call('ZADD', leases, expiry, p)
    held = held + 1
  else
    if mine then
      call('HDEL', owners, p)
      call('ZADD', leases, 0, p)
    end
    table.insert(reply.lost, batch.p)
  end
end

-- The listing: whoever holds the lister lease reads the source and appends its pages.
local lists = a.lister and not cancelled and call('HGET', r, 'lister') == a.lister
local cursor = call('HGET', r, 'cursor')
if lists and a.append and cursor ~= a.append.after and cursor ~= a.append.cursor then
  call('HDEL', r, 'lister', 'lister_until')  -- a failover lost what came between: another lister reads it again
  lists = false
end
if lists and a.append and cursor == a.append.after then
  for _, page in ipairs(a.append.pages) do
    local p = call('HINCRBY', r, 'pages', 1) - 1
    call('HSET', pages, p, page.s)
    call('HSET', out, p, string.rep('.', page.n))
    call('HINCRBY', r, 'sites', page.n)
  end
  if (a.append.not_due or 0) > 0 then  -- dealt with here and now
    call('HINCRBY', r, 'sites', a.append.not_due)
    call('HINCRBY', r, 'c:s', a.append.not_due)
  end
  for _, site in ipairs(a.append.due or {}) do call('ZADD', K.due, site[2], site[1]) end
  local stuck = call('EXISTS', K.stuck) == 1
  for _, site in ipairs((stuck or call('EXISTS', K.due) == 1) and a.append.idle or {}) do
    call('ZREM', K.due, site)
    if stuck and call('ZSCORE', K.stuck, site) then note(site, nil, 'idle') end
  end
  call('HSET', r, 'cursor', a.append.cursor)
  if a.append.ended then
    call('HSET', r, 'listed', 1, 'goes_on', a.append.goes_on, 'remaining', a.append.remaining,
      'bad_entries', a.append.problems)
  end
end
if lists and a.fault then call('HSET', r, 'listed', 1, 'fault', a.fault.reason, 'fault_message', a.fault.message) end
local listed = number(r, 'listed') == 1
reply.listing = lists and not listed and not a.bye
if reply.listing then call('HSET', r, 'lister_until', expiry)
elseif lists then call('HDEL', r, 'lister', 'lister_until') end

-- Claims: pages whose lease ran out or was given back first, then the next ones.
local function claim(p)
  local token = fence()
  call('HSET', owners, p, token)
  call('ZADD', leases, expiry, p)
  table.insert(reply.claimed, { tonumber(p), token, call('HGET', pages, p), call('HGET', out, p) })
end
local sites, total, nexts = number(r, 'sites'), number(r, 'pages'), number(r, 'next')
if reply.share > 0 and a.want > 0 and not cancelled then
  for _, p in ipairs(call('ZRANGEBYSCORE', leases, '-inf', ms(now), 'LIMIT', 0, a.want)) do claim(p) end
  while #reply.claimed < a.want and nexts < total do
    claim(tostring(nexts))
    nexts = nexts + 1
  end
  call('HSET', r, 'next', nexts)
  if not listed and not reply.listing and total - nexts < C.backlog and number(r, 'lister_until') <= now then
    local cap, token, not_due = number(r, 'cap'), fence(), number(r, 'c:s')
    call('HSET', r, 'lister', token, 'lister_until', expiry)
    reply.listing = true
    reply.lister = { token, call('HGET', r, 'cursor'), cap > 0 and cap - sites + not_due or cjson.null,
      cap > 0 and call('GET', K.cursor) or '', sites == not_due }
  end
end
reply.backlog = cancelled and 0 or total - nexts
local waits = a.want > 0 and (reply.backlog > 0 or call('ZCOUNT', leases, '-inf', ms(now)) > 0)  -- for a share
if held + #reply.claimed == 0 and not waits then
  call('HDEL', shares, a.walker)
  reply.share = 0
end

if a.retries > 0 and not cancelled then  -- one retry budget a run: a tenth of its sites, ten at least
  local used = number(r, 'retries')
  reply.retries = math.max(0, math.min(a.retries, math.max(10, math.ceil(sites / 10)) - used))
  call('HSET', r, 'retries', used + reply.retries)
end
if a.attempted > 0 then call('HINCRBY', r, 'attempted', a.attempted) end
local counted = cjson.decode(call('HGET', key(id, 'seconds'), a.walker) or '{}')
for field, n in pairs(a.seconds) do  -- the difference to what is counted, as with the outcomes
  local more = n - (counted[field] or 0)
  if more ~= 0 then call('HINCRBYFLOAT', K.metrics, 'request_seconds:' .. field, more) end
end
call('HSET', key(id, 'seconds'), a.walker, cjson.encode(a.seconds))

reply.status, reply.sites = status, sites
if a.abort then
  finish(id, 'failed', a.abort.reason, a.abort.message)
  reply.status, reply.finished = 'failed', true
elseif cancelled then  -- the last one out ends it
  if end_if_cancelled(id) then reply.status, reply.finished = 'cancelled', true else keep(id) end
elseif listed and number(r, 'done') == total then
  local fault, errors = call('HGET', r, 'fault'), 0
  for letter in string.gmatch(C.error_letters, '.') do errors = errors + number(r, 'c:' .. letter) end
  if fault then finish(id, 'failed', fault, call('HGET', r, 'fault_message'))
  elseif sites == 0 then finish(id, 'failed', 'no_sites', 'No public sites found in the network')
  else finish(id, errors > 0 and 'partial' or 'succeeded') end
  reply.status, reply.finished = call('HGET', r, 'status'), true
else
  if a.bye then ensure_job(id) end
  keep(id)
end
if call('EXISTS', K.job .. a.walker) == 1 then  -- what rq-dashboard shows; nothing in it came from a site
  local dealt = 0
  for letter in string.gmatch(C.letters, '.') do dealt = dealt + number(r, 'c:' .. letter) end
  call('HSET', K.job .. a.walker, 'description', string.format('Walk run %s: %d of %d sites%s, %s', id, dealt, sites,
    listed and '' or ' so far', reply.status), 'meta', cjson.encode({ run_id = id, status = reply.status,
    sites_done = dealt, sites_listed = sites, all_listed = listed }))
end
return cjson.encode(reply)
