-- Shared by every script. `K` (key names) and `C` (constants) are written before it by jobs/scripts.py.
local call = redis.call
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function ms(n) return string.format('%.0f', n) end
local function key(id, part) return K.run .. id .. ':' .. part end
local function number(r, field) return tonumber(call('HGET', r, field) or 0) or 0 end
local WORKING = { 'pages', 'out', 'leases', 'owners', 'walkers', 'shares' }
local FINAL = { succeeded = true, partial = true, failed = true, cancelled = true }

local function keep(id)  -- an unfinished run does not expire while anything looks after it
  call('EXPIRE', K.active, C.retention)
  call('EXPIRE', K.run .. id, C.retention)
  call('EXPIRE', K.runs, C.retention)
  call('EXPIRE', key(id, 'failed'), C.retention)
  for _, part in ipairs(WORKING) do call('EXPIRE', key(id, part), C.retention) end
end

local function live_walkers(id)
  local names = call('ZRANGEBYSCORE', key(id, 'walkers'), '(' .. ms(now), '+inf')
  table.sort(names)
  return names
end

local function job_waits(r)  -- a walker job of this run is in the queue, or was taken from it a moment ago
  local job = call('HGET', r, 'spare')
  if not job or call('EXISTS', K.job .. job) == 0 then return false end
  return call('LPOS', K.queue, job) or now - number(r, 'spare_ms') < C.pickup_ms
end

local function enqueue(id, job, iso)  -- as rq.Queue.enqueue writes it, with the fields of rq.Job.to_dict
  call('HSET', K.job .. job, 'created_at', iso, 'enqueued_at', iso, 'origin', C.queue, 'status', 'queued',
    'description', 'Walk run ' .. id, 'data', '["' .. C.walk .. '",null,["' .. id .. '"],{}]',
    'timeout', -1, 'result_ttl', C.result_ttl, 'failure_ttl', C.failure_ttl, 'retries_left', C.job_retries)
  call('EXPIRE', K.job .. job, C.retention)
  call('SADD', K.queues, K.queue)
  call('RPUSH', K.queue, job)
  call('HSET', K.run .. id, 'spare', job, 'spare_ms', ms(now))
end

local function ensure_job(id, job, iso)
  if C.use_queue == 1 and not job_waits(K.run .. id) then
    enqueue(id, job, iso)
    return true
  end
  return false
end

local function work_left(r)
  return number(r, 'listed') == 0 or number(r, 'done') < number(r, 'pages')
end

local function stamp_cooldown(id)
  call('SET', K.cooldown, ms(now) .. ' ' .. id, 'EX', 604800)
end

local function take_lock(id)  -- true when the run lock is ours: taken now, or held and renewed
  if call('SET', K.lock, id, 'NX', 'PX', C.lock_ms) then return true end
  if call('GET', K.lock) ~= id then return false end
  call('PEXPIRE', K.lock, C.lock_ms)
  return true
end

local function begin(id)  -- queued → running; false when another run still holds the lock
  if not take_lock(id) then return false end
  call('HSET', K.run .. id, 'status', 'running', 'started_ms', ms(now))
  stamp_cooldown(id)
  return true
end

local function finish(id, status, reason, message)
  local r = K.run .. id
  call('HSET', r, 'status', status, 'ended_ms', ms(now), 'reason', reason or '', 'message', message or '')
  local spare = call('HGET', r, 'spare')
  if spare and call('LREM', K.queue, 0, spare) > 0 then call('DEL', K.job .. spare) end  -- nobody needs it any more
  call('HDEL', r, 'lister', 'lister_until', 'spare', 'spare_ms')
  for _, part in ipairs(WORKING) do call('DEL', key(id, part)) end
  if call('GET', K.lock) == id then call('DEL', K.lock) end
  if call('GET', K.active) == id then call('DEL', K.active) end
  if status ~= 'succeeded' and number(r, 'attempted') == 0 then  -- it sent nothing: its claim is given back
    local claim = call('GET', K.cooldown)
    if claim and string.match(claim, ' (.+)$') == id then call('DEL', K.cooldown) end
  end
  if status == 'succeeded' or status == 'partial' then
    if number(r, 'cap') > 0 then call('SET', K.cursor, call('HGET', r, 'goes_on') or '')
    else call('DEL', K.cursor) end
  end
  call('EXPIRE', r, C.retention)
  call('EXPIRE', key(id, 'failed'), C.retention)
end
