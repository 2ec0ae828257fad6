-- Before every script, behind the tables `K` (key names) and `C` (constants) of jobs/scripts.py. `a`: its arguments.
-- job, iso: in all of them, should a walker job have to be left in the queue. legacy: names of the plugin's that were used.
local call = redis.call
local a = cjson.decode(ARGV[1])
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local WORKING = { 'pages', 'out', 'leases', 'owners', 'walkers', 'shares', 'seconds' }
local PRUNE_MS = 3600000  -- how old a census may be before what left the network is looked for
local PICKUP_MS = 5000  -- how long a job may be between the queue and its walker's first word

local function ms(n) return string.format('%.0f', n) end
for _, name in ipairs(a.legacy or {}) do
  local uses = string.match(call('HGET', K.legacy_uses, name) or '0', '^%d+')
  call('HSET', K.legacy_uses, name, uses + 1 .. ' ' .. ms(now))
  call('EXPIRE', K.legacy_uses, 30 * 86400)
end
local function key(id, part) return K.run .. id .. ':' .. part end
local function number(r, field) return tonumber(call('HGET', r, field) or 0) or 0 end
local function walker_of(token) return string.match(token, '^(.*)#') end

local function keep(id)  -- an unfinished run does not expire while anything looks after it
  for _, name in ipairs({ K.active, K.runs, K.run .. id, key(id, 'failed') }) do call('EXPIRE', name, C.retention) end
  for _, part in ipairs(WORKING) do call('EXPIRE', key(id, part), C.retention) end
end

local function live_walkers(id)
  local names = call('ZRANGEBYSCORE', key(id, 'walkers'), '(' .. ms(now), '+inf')
  table.sort(names)
  return names
end

local function enqueue(job, description, name, argument)
  -- as rq.Queue.enqueue writes it, with the fields of rq.Job.to_dict
  call('HSET', K.job .. job, 'created_at', a.iso, 'enqueued_at', a.iso, 'origin', C.queue, 'status', 'queued',
    'description', description, 'data', '["' .. name .. '",null,["' .. argument .. '"],{}]',
    'timeout', -1, 'result_ttl', 60, 'failure_ttl', 3600, 'retries_left', 3)
  call('EXPIRE', K.job .. job, C.retention)
  call('SADD', K.queues, K.queue)
  call('RPUSH', K.queue, job)
end

local function ensure_job(id)  -- a walker job of this run in the queue; true if it had to be put there
  local r = K.run .. id
  local spare = call('HGET', r, 'spare')
  local waits = spare and call('EXISTS', K.job .. spare) == 1
    and (call('LPOS', K.queue, spare) or now - number(r, 'spare_ms') < PICKUP_MS)
  if waits or C.use_queue == 0 then return false end
  enqueue(a.job, 'Walk run ' .. id, C.walk, id)
  call('HSET', r, 'spare', a.job, 'spare_ms', ms(now))
  return true
end

local function stamp_cooldown(id)
  call('SET', K.cooldown, ms(now) .. ' ' .. id, 'EX', 604800)
end

local function take_lock(id)  -- true when the run lock is ours: taken now, or held and renewed
  if call('SET', K.lock, id, 'NX', 'PX', C.lock_ms) then return true end
  return call('GET', K.lock) == id and call('PEXPIRE', K.lock, C.lock_ms) == 1
end

local function begin(id)  -- queued → running; false when another run still holds the lock
  if not take_lock(id) then return false end
  call('HSET', K.run .. id, 'status', 'running', 'started_ms', ms(now))
  stamp_cooldown(id)
  return true
end

local function follow_up(name, wait_ms)  -- a sweep has it done
  call('ZADD', K.follow_up, ms(now + wait_ms), name)
  call('EXPIRE', K.follow_up, 604800)
end

local function looked_at()  -- by a clock: all ticks of the time a.clock = { from, to }; false where another one was first
  local from, to = unpack(a.clock or {})
  if not to then return true end
  if (tonumber(call('HGET', K.clock, 'time') or '') or from) ~= from then return false end
  call('HSET', K.clock, 'time', ms(to))
  call('EXPIRE', K.clock, 30 * 86400)
  return true
end

local function finish(id, status, reason, message)
  local r = K.run .. id
  call('HSET', r, 'status', status, 'ended_ms', ms(now), 'reason', reason or '', 'message', message or '')
  local spare = call('HGET', r, 'spare')
  if spare and call('LREM', K.queue, 0, spare) > 0 then call('DEL', K.job .. spare) end  -- nobody needs it any more
  call('HDEL', r, 'lister', 'lister_until', 'spare', 'spare_ms')
  for _, part in ipairs(WORKING) do call('DEL', key(id, part)) end
  for _, name in ipairs({ K.lock, K.active }) do
    if call('GET', name) == id then call('DEL', name) end
  end
  if status ~= 'succeeded' and number(r, 'attempted') == 0 then  -- it sent nothing: its claim is given back
    if string.match(call('GET', K.cooldown) or '', ' (.+)$') == id then call('DEL', K.cooldown) end
  end
  if status == 'succeeded' or status == 'partial' then
    if number(r, 'cap') > 0 then call('SET', K.cursor, call('HGET', r, 'goes_on') or '')
    else call('DEL', K.cursor) end
  end
  if call('EXISTS', key(id, 'unverified')) == 1 then
    call('HSET', r, 'verification', 'pending')
    follow_up(id, C.settle_ms)
  end
  if status == 'succeeded' or status == 'partial' then
    local sites, at = string.match(call('GET', K.census) or '', '^(%d+) (%d+)$')
    local others = number(r, 'cap') == 0 and tonumber(sites) ~= number(r, 'sites')  -- in a listing of all sites
    local differs = sites and (others or now - at > PRUNE_MS)
    if differs then follow_up('prune', C.settle_ms) end
    if differs or not sites then call('SET', K.census, number(r, 'sites') .. ' ' .. ms(now), 'EX', 2592000) end
  end
  call('EXPIRE', r, C.retention)
  call('EXPIRE', key(id, 'failed'), C.retention)
  call('HINCRBY', K.metrics, 'runs:' .. status, 1)
  if status == 'succeeded' then call('HSET', K.metrics, 'last_success_ms', ms(now)) end
  local seconds = (now - number(r, 'started_ms')) / 1000
  for bucket in string.gmatch(number(r, 'started_ms') > 0 and C.run_buckets or '', '%S+') do
    if seconds <= (tonumber(bucket) or math.huge) then
      call('HINCRBY', K.metrics, 'run_seconds:' .. bucket, 1)
      call('HINCRBYFLOAT', K.metrics, 'run_seconds:sum', seconds)
      break
    end
  end
end
